//! The flags of the daemon that are about the mesh.

use crate::daemon::settings::{
    DEFAULT_MAX_RTT, Layer, Milliseconds, RelayUrl, RelayUrls, Switch, TokenSource,
};
use crate::manage::DEFAULT_CONSOLE_PORT;
use clap::Args;

/// What is said about the mesh. Nothing here has a default, as in all flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mesh")]
pub(super) struct MeshFlags {
    /// Token to join a mesh by, once: from then on its members know this machine. Other users of this
    /// machine see flags: `-` reads the token from standard input, `@FILE` from a file, and MESH_LLM_JOIN
    /// may hold it, too [default: the mesh joined last, else a new one]
    #[arg(long, value_name = "TOKEN")]
    join: Option<TokenSource>,

    /// Only use the models that others in the mesh serve, and serve none here: for machines without a
    /// GPU, or on battery
    #[arg(long, conflicts_with_all = [
        "model", "draft", "draft_max", "draft_min_p", "speculate", "draft_windows", "rpc", "tensor_split",
        "ctx_size", "parallel", "queue", "device", "gpu_layers", "slot_save",
    ])]
    client: bool,

    /// Stay alone: no port is opened for other machines, none is called, and only models of this one
    /// are served
    #[arg(long, conflicts_with_all = ["join", "client", "relay", "no_relay", "bind_port"])]
    no_mesh: bool,

    /// Relay of your own, as https://NAME, through which packets go (encrypted from end to end) where
    /// machines do not reach each other directly; repeat it, or put commas between several [default: the
    /// public ones of iroh's makers]
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with = "no_relay")]
    relay: Vec<RelayUrl>,

    /// Use no relay: machines that do not reach each other directly then do not see each other. For
    /// networks that nothing is to leave
    #[arg(long)]
    no_relay: bool,

    /// UDP port that other machines reach this one at; say it where a firewall or a router lets one port
    /// in [default: any free one]
    #[arg(long, value_name = "PORT")]
    bind_port: Option<u16>,

    /// Split the model over the machines of the mesh also where it fits on one: for trying that out
    #[arg(long, conflicts_with_all = ["client", "no_mesh", "rpc"])]
    split: bool,

    /// Milliseconds to another machine and back, beyond which no model is shared with it
    #[arg(long, value_name = "MS", help = format!("Milliseconds to another machine and back, beyond which no model is split with it [default: {}]", DEFAULT_MAX_RTT.as_millis()))]
    max_rtt: Option<Milliseconds>,

    /// Port of the console and the management API, which only this machine reaches; 0 takes any free one
    #[arg(long, value_name = "PORT", conflicts_with = "no_console", help = format!("Port of the console and the management API, which only this machine reaches; 0 takes any free one [default: {DEFAULT_CONSOLE_PORT}, or another one where that is taken]"))]
    console: Option<u16>,

    /// Open no port for the console; `mesh-llm status` and the like work without
    #[arg(long)]
    no_console: bool,
}

impl MeshFlags {
    /// What was said, the rest left open.
    pub(super) fn into_layer(self) -> Layer {
        let on = |said: bool| said.then_some(Switch(true));
        Layer {
            join: self.join,
            client: on(self.client),
            no_mesh: on(self.no_mesh),
            relay: (!self.relay.is_empty()).then_some(RelayUrls(self.relay)),
            no_relay: on(self.no_relay),
            bind_port: self.bind_port,
            split: on(self.split),
            max_rtt: self.max_rtt,
            console: self.console,
            no_console: on(self.no_console),
            ..Layer::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        flags: super::super::Flags,
    }

    fn read(words: &[&str]) -> Result<Layer, clap::Error> {
        let program = Program::try_parse_from(["mesh-llm"].iter().chain(words))?;
        Ok(program.flags.into_layer().1)
    }

    #[test]
    fn everything_can_be_said() {
        let layer = read(&[
            "--join",
            "-",
            "--client",
            "--relay",
            "https://a.example,https://b.example",
            "--relay",
            "http://127.0.0.1:3340",
            "--bind-port",
            "7",
            "--console",
            "8",
        ]);
        let layer = layer.unwrap();
        assert_eq!(layer.join, Some(TokenSource::StandardInput));
        assert_eq!(layer.relay.unwrap().0.len(), 3);
        assert_eq!((layer.bind_port, layer.console), (Some(7), Some(8)));
        assert_eq!((layer.client, layer.no_mesh), (Some(Switch(true)), None));
        let layer = read(&["--no-mesh", "--no-console"]).unwrap();
        assert_eq!(
            (layer.no_mesh, layer.no_console),
            (Some(Switch(true)), Some(Switch(true)))
        );
        assert_eq!(read(&[]).unwrap(), Layer::default());
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for words in [
            &["--client", "--model", "x"][..],
            &["--client", "--rpc", "a:1"],
            &["--client", "--ctx-size", "1"],
            &["--no-mesh", "--join", "-"],
            &["--no-mesh", "--client"],
            &["--no-relay", "--relay", "https://a.example"],
            &["--no-console", "--console", "1"],
        ] {
            let error = read(words).unwrap_err();
            assert_eq!(
                error.kind(),
                clap::error::ErrorKind::ArgumentConflict,
                "{words:?}"
            );
        }
    }

    #[test]
    fn a_token_is_in_no_error() {
        let error = read(&["--join", "the-token", "--port", "x"])
            .unwrap_err()
            .to_string();
        assert!(!error.contains("the-token"), "{error}");
        let error = read(&["--join", "the-token", "--no-mesh"])
            .unwrap_err()
            .to_string();
        assert!(!error.contains("the-token"), "{error}");
    }
}
