//! The log of both processes, on standard error as everything that they tell.

use llama_engine::server::options::LogFormat;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What a log is like.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Lines for people, or JSON.
    pub format: LogFormat,
    /// 0 what a user wants to know, 1 also debugging, 2 everything.
    pub verbose: u8,
    /// Whether a terminal shows it; it is coloured then, unless `NO_COLOR` is set.
    pub terminal: bool,
}

/// The crates that carry the mesh, by how their names begin.
const NETWORK: [&str; 6] = ["iroh", "noq", "portmapper", "netwatch", "hickory", "foca"];

/// Sends what this program's crates log to `writer`.
pub fn start(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static, style: Style) {
    let level = match style.verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Of networks that are not as they could be they warn without end, where nobody can do anything about it.
    let network = match style.verbose {
        0 => LevelFilter::ERROR,
        _ => LevelFilter::WARN,
    };
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(NETWORK.map(|target| (target, network)))
        // It warns each time that an only path was quiet for a while, which is nothing: such a path is kept.
        .with_target("noq_proto", LevelFilter::ERROR)
        // Where an endpoint is closed, its own end is an error to it, and the only one; those of its actor are some.
        .with_target("iroh::socket::transports::relay", LevelFilter::OFF)
        .with_target("iroh::socket::transports::relay::actor", network)
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target("llama_engine", level);
    let colours = style.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    // A process has one log; where there is one already, it stays.
    let _ = match (style.format, style.verbose) {
        (LogFormat::Json, _) => registry
            .with(lines.json().flatten_event(true).with_current_span(false))
            .try_init(),
        (LogFormat::Text, 0) => registry
            .with(lines.with_target(false).with_ansi(colours).without_time())
            .try_init(),
        (LogFormat::Text, _) => registry
            .with(lines.with_target(false).with_ansi(colours))
            .try_init(),
    };
    if style.format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a bug in mesh-llm")));
    }
}
