//! What stands around the processor in a whole Collector configuration: where its spans come from and go to.

use super::variables::{has_variable, variables};
use crate::config::{Mistake, Node, Source};
use crate::convert::Kind;
use crate::convert::emit::{Draft, scalar};
use crate::convert::yaml::{Section, line};

/// Processors that have nothing to do here.
const NEEDLESS: [(&str, &str); 3] = [
    ("batch", "requests are batched by the exporters themselves"),
    ("memory_limiter", "buffer.memory is a bound; senders are told to come back"),
    ("groupbytrace", "traces are gathered before they are judged"),
];

/// Adds receivers and exporters of the pipelines that the processor stands in. What cannot be read is no reason
/// to refuse the policies: it is noted.
pub(super) fn add(source: Source<'_>, document: &Node, processor: &str, draft: &mut Draft) {
    for prefix in ["", "config.", "spec.config."] {
        let Some(pipelines) = document.get(&format!("{prefix}service.pipelines")) else { continue };
        let mut surroundings = Surroundings { source, document, prefix, draft, exporters: Vec::new() };
        if let Err(mistake) = surroundings.pipelines(pipelines, processor) {
            let why = format!("it cannot be read: {}", mistake.message);
            surroundings.draft.note(Kind::LeftOut, mistake.line, "service.pipelines", why);
        }
        let exporters = surroundings.exporters;
        write_exporters(&exporters, draft);
        return;
    }
}

struct Surroundings<'a, 'd> {
    source: Source<'a>,
    document: &'a Node,
    prefix: &'a str,
    draft: &'d mut Draft,
    /// Lines of each.
    exporters: Vec<String>,
}

impl<'a> Surroundings<'a, '_> {
    fn pipelines(&mut self, pipelines: &'a Node, processor: &str) -> Result<(), Mistake> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for entry in Section::new(self.source, pipelines)?.entries() {
            let pipeline = Section::new(self.source, &entry.value)?;
            if !pipeline.texts("processors")?.contains(&processor) {
                continue;
            }
            for role in ["receivers", "processors", "exporters"] {
                for id in pipeline.texts(role)? {
                    if id != processor && !seen.contains(&(role, id)) {
                        seen.push((role, id));
                        self.component(role, id, line(pipeline.place(role)))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn component(&mut self, role: &str, id: &str, used_at: usize) -> Result<(), Mistake> {
        let section = match self.document.get(&format!("{}{role}", self.prefix)) {
            Some(all) => Section::new(self.source, all)?.section(id)?,
            None => None,
        };
        let at = section.map_or(used_at, |section| line(section.at));
        let kind = id.split('/').next().unwrap_or(id);
        match (role, kind) {
            ("receivers", "otlp") => self.receiver(section),
            ("receivers", _) => {
                let why = "Tailwater takes OTLP; keep this receiver in a Collector that sends to it";
                self.draft.note(Kind::LeftOut, at, format!("receiver {id}"), why);
                Ok(())
            }
            ("exporters", "otlp" | "otlp_grpc") => self.exporter(id, section, at, "grpc"),
            ("exporters", "otlphttp" | "otlp_http") => self.exporter(id, section, at, "http"),
            ("exporters", _) => {
                let why = "kept traces leave by OTLP and as Parquet";
                self.draft.note(Kind::LeftOut, at, format!("exporter {id}"), why);
                Ok(())
            }
            _ => {
                let needless = NEEDLESS.iter().find(|(name, _)| *name == kind);
                let (what, why) = match needless {
                    Some((_, why)) => (Kind::Settled, *why),
                    None => (
                        Kind::LeftOut,
                        "spans leave as they came; keep this processor in a Collector before Tailwater",
                    ),
                };
                self.draft.note(what, at, format!("processor {id}"), why);
                Ok(())
            }
        }
    }

    fn receiver(&mut self, section: Option<Section<'a>>) -> Result<(), Mistake> {
        let protocols = section.map(|section| section.section("protocols")).transpose()?.flatten();
        let Some(protocols) = protocols else { return Ok(()) };
        if ["grpc", "http"].iter().all(|key| protocols.place(key) == protocols.at) {
            let why = "neither grpc nor http stands in it; the defaults stay";
            self.draft.note(Kind::LeftOut, line(protocols.at), "protocols", why);
            return Ok(());
        }
        let mut text = String::from("\nreceivers:\n  otlp:\n");
        for (key, port) in [("grpc", 4317), ("http", 4318)] {
            if protocols.place(key) == protocols.at {
                text.push_str(&format!("    {key}: null\n"));
                continue;
            }
            let settings = protocols.section(key)?;
            let endpoint = settings.map(|settings| settings.text("endpoint")).transpose()?.flatten();
            let listen = endpoint.map_or_else(|| format!("localhost:{port}"), variables);
            let listen = if listen.starts_with(':') { format!("0.0.0.0{listen}") } else { listen };
            if !has_variable(&listen) && !is_address(&listen) {
                let why = format!("\"{listen}\" is no host and port; the default stays");
                self.draft.note(Kind::LeftOut, line(protocols.place(key)), key, why);
                text.push_str(&format!("    {key}: {{}}\n"));
                continue;
            }
            text.push_str(&format!(
                "    {key}: {{ listen: \"{}\" }}\n",
                listen.replace("localhost", "127.0.0.1")
            ));
            for entry in settings.iter().flat_map(|settings| settings.others(&["endpoint"])) {
                let why = "of the receiver; see receivers.otlp in config/reference.yaml";
                self.draft.note(Kind::LeftOut, line(entry.key_at), entry.key.as_str(), why);
            }
        }
        self.draft.rest.push_str(&text);
        Ok(())
    }

    fn exporter(
        &mut self,
        id: &str,
        section: Option<Section<'a>>,
        at: usize,
        protocol: &str,
    ) -> Result<(), Mistake> {
        let endpoint = section.map(|section| section.text("endpoint")).transpose()?.flatten();
        let (Some(section), Some(endpoint)) = (section, endpoint) else {
            self.draft.note(Kind::LeftOut, at, format!("exporter {id}"), "it has no endpoint");
            return Ok(());
        };
        let tls = section.section("tls")?;
        let insecure = tls.map(|tls| tls.boolean("insecure")).transpose()?.unwrap_or(false);
        let scheme = match endpoint.contains("://") {
            true => "",
            false if insecure => "http://",
            false => "https://",
        };
        let url = format!("{scheme}{}", variables(endpoint));
        if !is_url(&url) {
            let why = format!("its endpoint \"{endpoint}\" is no http or https URL");
            self.draft.note(Kind::LeftOut, at, format!("exporter {id}"), why);
            return Ok(());
        }
        let name = id.replace('/', "-");
        let mut text = format!("    # line {at}: exporter {id}\n    - name: {}\n", scalar(&name));
        text.push_str(&format!("      endpoint: \"{url}\"\n      protocol: {protocol}\n"));
        text.push_str(&headers(section)?);
        text.push_str(&tls.map(certificates).unwrap_or_default());
        if let Some(compression) = section.text("compression")?.filter(|name| ["gzip", "zstd"].contains(name))
        {
            text.push_str(&format!("      compression: {compression}\n"));
        }
        let queue = ["sending_queue", "retry_on_failure"];
        for entry in section.others(&["endpoint", "tls", "headers", "compression"]) {
            let (kind, why) = match queue.contains(&entry.key.as_str()) {
                true => (
                    Kind::Settled,
                    "the outbox on disk is the queue, and delivery is retried until it succeeds",
                ),
                false => (
                    Kind::LeftOut,
                    "see exporters.otlp in config/reference.yaml for what an exporter can be told",
                ),
            };
            self.draft.note(kind, line(entry.key_at), format!("{} of exporter {id}", entry.key), why);
        }
        self.exporters.push(text);
        Ok(())
    }
}

fn headers(section: Section<'_>) -> Result<String, Mistake> {
    let Some(headers) = section.section("headers")? else { return Ok(String::new()) };
    let pair = |key: &str| -> Result<String, Mistake> {
        let value = variables(headers.text(key)?.unwrap_or_default());
        Ok(format!("{}: '{}'", scalar(key), value.replace('\'', "''")))
    };
    let is_name = |key: &&str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let names = headers.entries().iter().map(|entry| entry.key.as_str()).filter(is_name);
    let pairs: Vec<String> = names.map(pair).collect::<Result<_, _>>()?;
    Ok(format!("      headers: {{ {} }}\n", pairs.join(", ")))
}

fn certificates(tls: Section<'_>) -> String {
    let file = |key: &str| {
        let file = variables(tls.text(key).ok().flatten()?).replace('\'', "''");
        Some(format!("{key}: '{file}'"))
    };
    let files: Vec<String> = ["ca_file", "cert_file", "key_file"].into_iter().filter_map(file).collect();
    if files.is_empty() { String::new() } else { format!("      tls: {{ {} }}\n", files.join(", ")) }
}

/// What an exporter of ours can be pointed at, as far as is known without the environment.
fn is_url(text: &str) -> bool {
    let is_plain = !text.contains(['"', '\\']) && !text.contains(char::is_control);
    let reaches = |url: url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    is_plain && (has_variable(text) || url::Url::parse(text).is_ok_and(reaches))
}

fn is_address(listen: &str) -> bool {
    let is_plain = |host: &str| !host.is_empty() && !host.contains(['"', '\\', ' ']);
    let port = listen.rsplit_once(':').filter(|(host, _)| is_plain(host)).map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

fn write_exporters(exporters: &[String], draft: &mut Draft) {
    if exporters.is_empty() {
        return;
    }
    draft.rest.push_str("\nexporters:\n  # parquet: { url: \"s3://bucket/traces\" }   # kept traces can also be stored as Parquet\n  otlp:\n");
    draft.rest.push_str(&exporters.concat());
}
