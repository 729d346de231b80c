"""A chat over real WebSockets, traced by the Python SDK on both sides. See ../README.md."""

import asyncio
import json
import sys

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

TRACE_CONTEXT = TraceContextTextMapPropagator()
HALF = 1 << 55
OF_EACH_KIND = 2


def provider(service):
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200))
    return provider


SERVER, CLIENT = provider("chat-server"), provider("chat-client")
server, client = (side.get_tracer("tailwater.test", "1.2.3") for side in (SERVER, CLIENT))


def span_id(span):
    return f"{span.get_span_context().span_id:016x}"


def carried(span):
    carrier = {}
    TRACE_CONTEXT.inject(carrier, set_span_in_context(span))
    return carrier


def linked(carrier):
    return Link(get_current_span(TRACE_CONTEXT.extract(carrier)).get_span_context())


async def handle(connection):
    """One span for the connection, open until it closes, and one below it for each message."""
    parent = TRACE_CONTEXT.extract(connection.request.headers)
    with server.start_as_current_span("connection", context=parent, kind=SpanKind.SERVER) as span:
        await connection.send(span_id(span))
        async for text in connection:
            await connection.send(json.dumps(answer(json.loads(text))))


def answer(message):
    """The message's span links to the one that sent it, which belongs to a trace of its own."""
    links = [linked(message["carrier"])]
    with server.start_as_current_span("message", kind=SpanKind.CONSUMER, links=links) as span:
        with server.start_as_current_span("query", kind=SpanKind.CLIENT) as query:
            if message["fails"]:
                query.set_status(Status(StatusCode.ERROR, "deadlock"))
    return {"message": span_id(span), "query": span_id(query)}


class Session:
    """A client that stays, over more than one connection: its span is the root, and ends last."""

    def __init__(self):
        self.span = client.start_span("session", kind=SpanKind.CLIENT)
        self.trace_id = self.span.get_span_context().trace_id
        self.connection, self.connections, self.messages = None, [], []

    @property
    def is_kept(self):
        """By the share of half of all traces."""
        return self.trace_id & ((1 << 56) - 1) >= HALF

    async def open(self, url):
        self.connection = await connect(url, additional_headers=carried(self.span))
        self.connections.append(await self.connection.recv())

    async def say(self, fails=False):
        links = [Link(self.span.get_span_context())]
        with client.start_as_current_span("send", kind=SpanKind.PRODUCER, links=links) as send:
            await self.connection.send(json.dumps({"carrier": carried(send), "fails": fails}))
            answered = json.loads(await self.connection.recv())
        sender = f"{send.get_span_context().trace_id:032x}"
        self.messages.append({**answered, "fails": fails, "sender": sender})

    async def close(self):
        await self.connection.close()
        await self.connection.wait_closed()

    def told(self):
        return {
            "trace_id": f"{self.trace_id:032x}",
            "is_kept": self.is_kept,
            "session": span_id(self.span),
            "connections": self.connections,
            "messages": self.messages,
        }


def sessions():
    """As many that a share of half keeps as of others. A span that is not ended is not sent."""
    found = {True: [], False: []}
    while min(map(len, found.values())) < OF_EACH_KIND:
        session = Session()
        found[session.is_kept].append(session)
    return found[True][:OF_EACH_KIND] + found[False][:OF_EACH_KIND]


async def step(name, session, url):
    match name:
        case "open":
            await session.open(url)
            await session.say()
            await session.say()
        case "fail":
            await session.say(fails=True)
        case "reconnect":
            await session.close()
            await session.open(url)
            await session.say()
        case "close":
            await session.say()
            await session.close()
            session.span.end()


async def main():
    """A step for each line of the standard input, and what was done so far on the output."""
    async with serve(handle, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        running = sessions()
        while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
            for session in running:
                await step(name, session, f"ws://127.0.0.1:{port}")
            # The server ends a connection's span when it has seen the close.
            await asyncio.sleep(0.2)
            for side in (SERVER, CLIENT):
                await asyncio.to_thread(side.force_flush)
            print(json.dumps([session.told() for session in running]), flush=True)


asyncio.run(main())
