//! Long-lived WebSocket connections, traced by the real SDK on both sides.
//!
//! The program is `tests/sdk/python/websocket.py`, installed by `tests/install`. Some clients stay, over two
//! connections each: the session is the root and ends last, both connections hang on it by `traceparent`, and
//! each message has a span below its connection that links to the span that sent it.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use super::support::{
    Backend, ERRORS_AND_HALF, FullSpan, HALF, Setup, Tailwater, WITHIN, eventually, hex, randomness, to_hex,
};

#[derive(Debug, Deserialize)]
struct Session {
    trace_id: String,
    /// By the share of half of all traces.
    is_kept: bool,
    /// Span IDs.
    session: String,
    connections: Vec<String>,
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    message: String,
    query: String,
    fails: bool,
    /// The trace of the span that sent it.
    sender: String,
}

impl Session {
    /// The spans of messages, and of what they did.
    fn messages(&self, which: impl Fn(&Message) -> bool) -> HashSet<String> {
        let chosen = self.messages.iter().filter(|message| which(message));
        chosen.flat_map(|message| [message.message.clone(), message.query.clone()]).collect()
    }
}

/// The chat, which does a step when it is told to.
struct Chat {
    process: Child,
    steps: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Chat {
    fn start(tailwater: &Tailwater) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = root.join("target/sdk/python/bin/python");
        assert!(program.exists(), "{} is not there: run tests/install", program.display());
        let mut process = Command::new(program)
            .arg(root.join("tests/sdk/python/websocket.py"))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", tailwater.grpc())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let steps = process.stdin.take().unwrap();
        let told = BufReader::new(process.stdout.take().unwrap());
        Self { process, steps, told }
    }

    /// Does a step; what its spans lead to has been judged when this returns.
    async fn step(&mut self, name: &str, tailwater: &Tailwater) -> Vec<Session> {
        let sessions = tokio::task::block_in_place(|| {
            writeln!(self.steps, "{name}").unwrap();
            let mut line = String::new();
            self.told.read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap()
        });
        tailwater.judged().await;
        sessions
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the backend has of a session, once it has as much as is expected.
async fn left(backend: &Backend, session: &Session, expected: usize) -> Vec<FullSpan> {
    let trace_id = hex(&session.trace_id);
    let of_session = || -> Vec<FullSpan> {
        backend.spans().into_iter().filter(|full| full.span.trace_id == trace_id).collect()
    };
    eventually("what was kept is delivered", WITHIN, async || (of_session().len() >= expected).then_some(()))
        .await;
    of_session()
}

fn ids(spans: &[FullSpan]) -> HashSet<String> {
    spans.iter().map(|full| to_hex(&full.span.span_id)).collect()
}

async fn assert_left(backend: &Backend, session: &Session, expected: HashSet<String>) {
    let spans = left(backend, session, expected.len()).await;
    assert_eq!(ids(&spans), expected, "{session:?}");
    assert_eq!(spans.len(), expected.len(), "each span once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_kept_while_its_connection_is_open_and_the_connection_with_it() {
    let backend = Backend::start().await;
    // However long the programs take, no verdict is too old for its trace.
    let setup = Setup { hindsight: "600s", ..Setup::of(ERRORS_AND_HALF) };
    let tailwater = setup.forwarding(&backend).start().await;
    let mut chat = Chat::start(&tailwater);

    for session in chat.step("open", &tailwater).await {
        let ordinary = if session.is_kept { session.messages(|_| true) } else { HashSet::new() };
        assert_left(&backend, &session, ordinary).await;
    }
    for session in chat.step("fail", &tailwater).await {
        let messages = session.messages(|message| message.fails || session.is_kept);
        assert_left(&backend, &session, messages).await;
    }
    for session in chat.step("reconnect", &tailwater).await {
        let mut expected = session.messages(|message| message.fails || session.is_kept);
        // The connection of the failed message has ended: it can be read in its place now.
        expected.insert(session.connections[0].clone());
        assert_left(&backend, &session, expected).await;
    }
    let sessions = chat.step("close", &tailwater).await;
    for session in &sessions {
        let mut expected = session.messages(|message| message.fails || session.is_kept);
        expected.insert(session.connections[0].clone());
        expected.insert(session.session.clone());
        if session.is_kept {
            expected.insert(session.connections[1].clone());
        }
        assert_left(&backend, session, expected).await;
        check_structure(&backend, session).await;
    }
    let ledger = tailwater.judged().await;
    // Of each session its own span, two connections, five messages with a query each, and five senders.
    assert_eq!(ledger.accepted, (sessions.len() * 18) as u64);
    let senders = sessions.iter().flat_map(|session| &session.messages);
    let senders = senders.filter(|message| randomness(&hex(&message.sender).try_into().unwrap()) >= HALF);
    let of_sessions: usize = sessions.iter().map(|session| if session.is_kept { 13 } else { 4 }).sum();
    assert_eq!(ledger.kept, (of_sessions + senders.count()) as u64);
}

/// Parents, links and thresholds are what they have to be.
async fn check_structure(backend: &Backend, session: &Session) {
    let spans = left(backend, session, 0).await;
    let find =
        |id: &String| spans.iter().find(|full| to_hex(&full.span.span_id) == *id).map(|full| &full.span);
    let root = find(&session.session).unwrap();
    assert!(root.parent_span_id.is_empty());
    assert_eq!(
        root.trace_state.contains("th:8"),
        session.is_kept,
        "a root that leaves alone has no threshold"
    );
    let connection = find(&session.connections[0]).unwrap();
    assert_eq!(connection.parent_span_id, root.span_id, "it continues the trace of its client");
    for sent in session.messages.iter().filter(|message| message.fails || session.is_kept) {
        let (message, query) = (find(&sent.message).unwrap(), find(&sent.query).unwrap());
        assert_eq!(query.parent_span_id, message.span_id);
        assert_eq!(message.links.len(), 1);
        assert_eq!(message.links[0].trace_id, hex(&sent.sender));
        assert_eq!(message.trace_state.contains("th:8"), !sent.fails, "an error stands for itself");
        let is_first = session.messages.iter().take(3).any(|first| first.message == sent.message);
        let parent = &session.connections[if is_first { 0 } else { 1 }];
        assert_eq!(to_hex(&message.parent_span_id), *parent);
    }
}
