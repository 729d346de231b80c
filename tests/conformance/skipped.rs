//! Scenarios that are not run, each with its reason. A row goes when what it waits for is there.

const STREAM: &str = "the units of a stream are not built: a trace without a root is one unit";
const ROOT: &str = "buffer.root is not built";

pub const SKIPPED: &[(&str, &str)] = &[
    ("a trace without a root is judged at the longest wait, by the spans whose parent is not here", STREAM),
    ("a failed message of a long connection is kept alone, and the connection with it", STREAM),
    ("a span that hangs on a sent message follows it and asks no policy", STREAM),
    ("the root of a connection that is kept for itself takes along what is still in reach", STREAM),
    ("after its root has left alone a connection is a dropped trace, which an error brings back", STREAM),
    ("long after a handshake was judged each message of its connection is judged for itself", STREAM),
    ("a kept unit takes along what is above it and not what is beside it", STREAM),
    ("a message that comes after its failed part was sent leaves alone", STREAM),
    ("a failed message takes along the parts that were dropped before it came", STREAM),
    ("draining judges all that is pending and delivers it before the process ends", STREAM),
    ("long after a trace was dropped a late error is kept without it", STREAM),
    ("one failed message that takes its handshake along does not keep the messages after it", STREAM),
    ("a slow message of a connection is kept alone, measured against its own operation", STREAM),
    ("a span below a root that goes elsewhere can be named a root", ROOT),
];
