//! Scenarios that are not run, each with its reason. A row goes when what it waits for is there.

const STREAM: &str = "the units of a stream are not built: a trace without a root is one unit";
const BUDGETS: &str = "budgets and formulas are not built";
const SHADOW: &str = "shadow policies are not built";
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
    ("a drop policy that does not match stops no other policy", BUDGETS),
    ("a budget below the traffic keeps about the budget, with an honest weight", BUDGETS),
    ("traffic below its budget is kept whole", BUDGETS),
    ("a budget of bytes counts the bytes of whole traces", BUDGETS),
    ("traces that do not match use nothing of a budget, however the conditions are listed", BUDGETS),
    ("members of a composite policy become policies with budgets of their own", BUDGETS),
    ("a trace whose own policy is over budget does not fall to the next policy", BUDGETS),
    ("a member without an allocation gets an equal part", BUDGETS),
    ("a trace larger than the budget of a second still has a chance", BUDGETS),
    ("a budget keeps the traces of the highest randomness and writes the cut as threshold", BUDGETS),
    ("a share with a ceiling is a share until the ceiling is reached", BUDGETS),
    ("each key has a budget of its own", BUDGETS),
    ("a late span without news does not draw again from a budget that has room by then", BUDGETS),
    ("a shadow policy is counted and never applied", SHADOW),
    ("a span below a root that goes elsewhere can be named a root", ROOT),
];
