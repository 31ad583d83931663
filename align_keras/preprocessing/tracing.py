"""How to trace the functions that data sets map."""

import tensorflow as tf

#: A decorator for functions that a data set maps, and for the functions they call. Otherwise
#: AutoGraph would rewrite a hundred functions, which takes four seconds per process. The result
#: would be the same, since none of their Python `if` and `for` statements depends on a tensor.
as_written = tf.autograph.experimental.do_not_convert
