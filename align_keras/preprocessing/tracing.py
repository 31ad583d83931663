"""How functions are traced that data sets map."""

import tensorflow as tf

#: For functions that a data set maps, and what they call. AutoGraph would rewrite a hundred
#: functions, which takes a process four seconds, and change none: no Python `if` or `for` in them
#: depends on a tensor.
as_written = tf.autograph.experimental.do_not_convert
