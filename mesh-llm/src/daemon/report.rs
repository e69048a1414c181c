//! What the daemon tells its user, as text or as JSON.

use super::console::Console;
use super::progress::{News, Progress, Steps};
use crate::engine::restarts::MAX_CRASHES;
use crate::engine::{State, waiting_for};
use crate::exit::Exit;
use crate::log::{self, Style};
use llama_engine::server::options::LogFormat;
use llama_engine::status::Ready;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Tells the user; clones tell the same one.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    console: Console,
    format: LogFormat,
}

/// What is served, and where.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// The model's id.
    pub(super) model: String,
    /// Where the API is.
    pub(super) address: SocketAddr,
}

impl Reporter {
    /// Takes the log over, too, down to what `verbose` asks for.
    pub(super) fn start(console: Console, format: LogFormat, verbose: u8) -> Self {
        log::start(
            console.clone(),
            Style {
                format,
                verbose,
                terminal: console.is_terminal(),
            },
        );
        Self { console, format }
    }

    /// A sentence.
    pub(super) fn note(&self, sentence: &str) {
        match self.format {
            LogFormat::Text => self.console.line(sentence),
            LogFormat::Json => tracing::info!("{sentence}"),
        }
    }

    /// How others join, which whoever reads it can.
    pub(super) fn invite(&self, token: &str) {
        match self.format {
            LogFormat::Text => self.console.line(format!(
                "Invite token: {token}\n  \
                 mesh-llm --join -             on another machine, and paste it there: adds that machine to this one\n  \
                 mesh-llm --client --join -    only uses what the others serve"
            )),
            LogFormat::Json => tracing::info!(token, "invite"),
        }
    }

    /// A line that the next one replaces; for terminals.
    pub(super) fn passing(&self, line: &str) {
        self.console.passing(line);
    }

    /// Whether a person looks on, who is told in words.
    pub(super) fn is_terminal(&self) -> bool {
        self.format == LogFormat::Text && self.console.is_terminal()
    }

    /// The form of what is told.
    pub(super) fn format(&self) -> LogFormat {
        self.format
    }

    /// Why the program ends, with the exit code.
    pub(super) fn error(&self, message: &str, exit: Exit) {
        match self.format {
            LogFormat::Text => self.console.line(format!("mesh-llm: {message}")),
            LogFormat::Json => tracing::error!(exit = exit.0, "{message}"),
        }
    }

    /// A line of the engine's log.
    pub(super) fn engine_log(&self, line: &[u8]) {
        if self.format == LogFormat::Json && !is_json_object(line) {
            // llama.cpp's last words before an abort know no format.
            tracing::warn!(target: "llama_engine", "{}", String::from_utf8_lossy(line));
        } else {
            self.console.line(line);
        }
    }

    /// Waits until everything is written.
    pub(super) fn flush(&self) {
        self.console.flush();
    }

    /// Follows the engine that serves `offer`.
    pub(super) fn engine(&self, offer: Offer) -> EngineReport {
        let fine = self.format == LogFormat::Text && self.console.is_terminal();
        let steps = if fine { Steps::Fine } else { Steps::Coarse };
        EngineReport {
            reporter: self.clone(),
            progress: Progress::new(steps),
            offer,
        }
    }
}

/// Tells of one engine.
#[derive(Debug)]
pub(super) struct EngineReport {
    reporter: Reporter,
    progress: Progress,
    offer: Offer,
}

impl EngineReport {
    /// Takes the engine's next state.
    pub(super) fn state(&mut self, state: &State) {
        let Some(news) = self.progress.news(state) else {
            return;
        };
        match self.reporter.format {
            LogFormat::Text => self.text(news),
            LogFormat::Json => self.json(news),
        }
    }

    fn text(&self, news: News) {
        let console = &self.reporter.console;
        let model = &self.offer.model;
        match news {
            News::Loading { percent } if console.is_terminal() => {
                console.passing(format!("loading {model}: {percent} %"));
            }
            News::Loading { percent } => console.line(format!("loading {model}: {percent} %")),
            News::Ready { ready, workers } => console.line(next_steps(&self.offer, &ready, &workers)),
            News::ReadyAgain => console.line("the engine answers again"),
            News::Crashed { crashes, cause, delay } => console.line(format!(
                "the engine {cause}; starting it again in {} ms (crash {crashes} of at most {MAX_CRASHES} in a row)",
                delay.as_millis()
            )),
            News::Lost { message } => console.line(format!("{message}; loading {model} again")),
            News::Waiting { message } => console.line(waiting_for(&message)),
            News::Elsewhere { message } => console.line(message),
            News::Failed(failure) if failure.last_lines.is_empty() => {}
            News::Failed(failure) => {
                console.line("the engine's last lines:");
                for line in failure.last_lines {
                    console.line(format!("  {line}"));
                }
            }
        }
    }

    fn json(&self, news: News) {
        let model = &self.offer.model;
        match news {
            News::Loading { percent } => tracing::info!(%model, percent, "loading"),
            News::Ready { ready, workers } => tracing::info!(
                %model,
                url = url(self.offer.address),
                context = ready.context,
                slots = ready.slots,
                gpu_layers = ready.gpu_layers,
                model_bytes = ready.model_bytes,
                context_bytes = ready.context_bytes,
                workers = workers.join(", "),
                "ready"
            ),
            News::ReadyAgain => tracing::info!(%model, "ready again"),
            News::Crashed {
                crashes,
                cause,
                delay,
            } => {
                tracing::warn!(%model, crashes, cause, delay_ms = millis(delay), "the engine crashed");
            }
            News::Lost { message } => tracing::warn!(%model, cause = message, "a node of the split was lost"),
            News::Waiting { message } => tracing::warn!(%model, cause = message, "waiting for a worker"),
            News::Elsewhere { message } => tracing::info!(%model, cause = message, "not served here"),
            News::Failed(failure) => {
                tracing::error!(%model, last_lines = failure.last_lines.join("\n"), "the engine failed");
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn is_json_object(line: &[u8]) -> bool {
    line.first() == Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// The API's URL, as a client on this machine writes it.
pub(super) fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let host = match ip {
        // The name that people know.
        IpAddr::V4(Ipv4Addr::LOCALHOST) => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("http://{host}:{}/v1", address.port())
}

/// What the user can do now.
fn next_steps(offer: &Offer, ready: &Ready, workers: &[String]) -> String {
    let url = url(offer.address);
    let place = match (ready.gpu_layers, workers) {
        (0, []) => "on the CPU".to_owned(),
        (layers, []) => format!("{layers} layers on the GPU"),
        // What each has was told when it was decided.
        (_, workers) => format!("with {}", workers.join(", ")),
    };
    let model = serde_json::Value::from(offer.model.as_str());
    let request = format!(r#"{{"model":{model},"messages":[{{"role":"user","content":"Hello!"}}]}}"#);
    // In single quotes, the shell leaves everything but these as it is.
    let request = request.replace('\'', r"'\''");
    format!(
        "\n{model} answers at {url}\n\
         {context} tokens of context, {slots} at once, {place}\n\n  \
         curl {url}/chat/completions -H 'Content-Type: application/json' -d '{request}'\n",
        model = offer.model,
        context = ready.context,
        slots = match ready.slots {
            1 => "1 request".to_owned(),
            slots => format!("{slots} requests"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_one_that_a_client_can_use() {
        for (address, expected) in [
            ("127.0.0.1:9337", "http://localhost:9337/v1"),
            ("0.0.0.0:80", "http://localhost:80/v1"),
            ("192.168.1.5:80", "http://192.168.1.5:80/v1"),
            ("[::]:80", "http://[::1]:80/v1"),
        ] {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_next_step_can_be_pasted() {
        let offer = Offer {
            model: "it's".to_owned(),
            address: "127.0.0.1:9337".parse().unwrap(),
        };
        let ready = Ready {
            address: String::new(),
            context: 4096,
            slots: 1,
            gpu_layers: 0,
            model_bytes: 0,
            context_bytes: 0,
            node_layers: Vec::new(),
        };
        let text = next_steps(&offer, &ready, &["a:1".to_owned(), "b:2".to_owned()]);
        assert!(text.contains("1 request at once, with a:1, b:2\n"), "{text}");
        let text = next_steps(&offer, &ready, &[]);
        assert!(
            text.contains("4096 tokens of context, 1 request at once, on the CPU"),
            "{text}"
        );
        assert!(text.contains(r#"-d '{"model":"it'\''s","messages""#), "{text}");
        assert_eq!(
            text.lines()
                .filter(|line| line.trim_start().starts_with("curl "))
                .count(),
            1
        );
    }
}
