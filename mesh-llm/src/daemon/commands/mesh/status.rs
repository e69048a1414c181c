//! What runs: this machine, its mesh, the models.

use super::super::out::{json, size, table};
use super::{Error, Out, Times, plain, short};
use crate::daemon::report::Reporter;
use crate::manage::{Client, MeshStatus, NodeStatus, PathKind, ServedModel, Status};
use llama_engine::server::options::LogFormat;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

/// Shows it, once or after each change.
pub(super) fn show(client: &Client, times: Times, out: Out, reporter: &Reporter) -> Result<(), Error> {
    match times {
        Times::Once => out.text(&written(&client.status()?, out.format))?,
        Times::EachChange => {
            let redraws = out.format == LogFormat::Text && io::stdout().is_terminal();
            let mut screen = Screen::default();
            let mut unread = false;
            client.follow(|status| {
                let text = written(&status, out.format);
                let text = if redraws {
                    screen.redraw(&text)
                } else {
                    separate(text, out.format)
                };
                match out.write(&text) {
                    Ok(()) => ControlFlow::Continue(()),
                    // Whoever reads has seen enough.
                    Err(_) => {
                        unread = true;
                        ControlFlow::Break(())
                    }
                }
            })?;
            if !unread {
                reporter.note("mesh-llm has ended");
            }
        }
    }
    Ok(())
}

/// One status of several on paper.
fn separate(text: String, format: LogFormat) -> String {
    match format {
        LogFormat::Text => text + "\n",
        LogFormat::Json => text,
    }
}

/// A terminal on which each text takes the place of the last.
#[derive(Debug, Default)]
struct Screen {
    used: bool,
}

impl Screen {
    /// What is to be written: without a moment in which nothing is there, so that nothing flickers.
    fn redraw(&mut self, text: &str) -> String {
        let begin = if self.used { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        self.used = true;
        format!("{begin}{}\x1b[J", text.replace('\n', "\x1b[K\n"))
    }
}

fn written(status: &Status, format: LogFormat) -> String {
    match format {
        LogFormat::Text => text(status),
        LogFormat::Json => json(status),
    }
}

/// For people.
fn text(status: &Status) -> String {
    let mut text = head(status);
    let nodes: Vec<&NodeStatus> = std::iter::once(&status.this).chain(&status.nodes).collect();
    text += "\n";
    text += &table(
        &[
            "NODE", "ID", "ROLE", "RTT", "PATH", "OFFERS", "DEVICES", "VERSION",
        ],
        nodes.iter().enumerate().map(|(at, node)| {
            vec![
                plain(&node.name) + if at == 0 { " (this)" } else { "" },
                plain(&node.short),
                node.role.to_string(),
                rtt(node.rtt_ms),
                path(node.path),
                format!(
                    "{} of {}",
                    size(node.memory.offered_bytes),
                    size(node.memory.total_bytes)
                ),
                devices(node),
                plain(&node.version),
            ]
        }),
    );
    let served = nodes
        .iter()
        .flat_map(|node| node.models.iter().map(move |model| (node, model)));
    text += &section(
        &["MODEL", "NODE", "STATE", "CONTEXT", "BUSY", "WAITING"],
        served.map(|(node, model)| {
            vec![
                plain(&model.name),
                plain(&node.name),
                stage(model),
                some(model.context),
                if model.slots == 0 {
                    String::new()
                } else {
                    format!("{} of {}", model.busy, model.slots)
                },
                some(model.waiting),
            ]
        }),
    );
    text += &section(
        &["ON DISK", "SIZE", "NODES"],
        on_disk(&nodes).into_iter().map(|((model, bytes), nodes)| {
            let nodes: Vec<String> = nodes.iter().map(|node| plain(&node.name)).collect();
            vec![plain(model), size(bytes), nodes.join(", ")]
        }),
    );
    text += &section(
        &["GROUP", "EPOCH", "MACHINES AND THEIR LAYERS"],
        status.groups.iter().map(|group| {
            let machines = group.machines.iter().map(|machine| match machine.layers {
                0 => plain(&machine.name),
                layers => format!("{}: {layers}", plain(&machine.name)),
            });
            vec![
                plain(&group.model),
                group.epoch.to_string(),
                machines.collect::<Vec<_>>().join(", "),
            ]
        }),
    );
    text += &section(
        &["CLIENT", "ID", "RTT", "PATH", "VERSION"],
        status.clients.iter().map(|client| {
            vec![
                client.name.as_deref().map(plain).unwrap_or_default(),
                plain(&client.short),
                rtt(client.rtt_ms),
                path(client.path),
                plain(&client.version),
            ]
        }),
    );
    text
}

fn head(status: &Status) -> String {
    let version = plain(&status.version);
    let place = match &status.home {
        Some(home) => format!(", with the state directory {}", plain(home)),
        None => String::new(),
    };
    let mesh = match &status.mesh {
        None => "alone, in no mesh".to_owned(),
        Some(MeshStatus { id, role, .. }) => {
            format!("in mesh {}, as {role}", short(id))
        }
    };
    let notice = match &status.notice {
        Some(notice) => format!("{}\n", plain(notice)),
        None => String::new(),
    };
    format!("mesh-llm {version} {mesh}{place}\n{notice}")
}

/// A table, if there is anything to show in it.
fn section(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut rows = rows.peekable();
    match rows.peek() {
        None => String::new(),
        Some(_) => format!("\n{}", table(headings, rows)),
    }
}

fn rtt(milliseconds: Option<f64>) -> String {
    milliseconds.map_or(String::new(), |milliseconds| format!("{milliseconds:.1} ms"))
}

fn path(path: Option<PathKind>) -> String {
    path.map_or(String::new(), |path| path.to_string())
}

fn devices(node: &NodeStatus) -> String {
    let devices = node.devices.iter();
    let devices = devices.map(|device| format!("{} {}", plain(&device.name), size(device.memory_bytes)));
    devices.collect::<Vec<_>>().join(", ")
}

/// Who has which files: those of one name may differ.
fn on_disk<'a>(nodes: &[&'a NodeStatus]) -> BTreeMap<(&'a str, u64), Vec<&'a NodeStatus>> {
    let mut by_model: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for node in nodes {
        for model in &node.on_disk {
            let nodes = by_model.entry((model.name.as_str(), model.bytes)).or_default();
            nodes.push(*node);
        }
    }
    by_model
}

fn stage(model: &ServedModel) -> String {
    match model.percent {
        Some(percent) => format!("{} {percent} %", model.stage),
        None => model.stage.to_string(),
    }
}

/// A number, or nothing for 0.
fn some(number: u32) -> String {
    if number == 0 {
        String::new()
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::example::{self, INVITE};

    #[test]
    fn people_see_machines_models_and_clients() {
        let mut status = example::status();
        let mut other = status.this.clone();
        other.name = "barn\x1b[2J".into();
        other.rtt_ms = Some(20.04);
        other.models.clear();
        status.nodes.push(other);
        let text = text(&status);
        let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap();
        assert!(line("mesh-llm 0.1.0").ends_with(
            "in mesh ababababab, as node, with the state directory /home/u/.local/state/mesh-llm"
        ));
        assert!(line("shed (this)").contains("24.00 GB of 32.00 GB"), "{text}");
        assert!(
            line("barn").contains("20.0 ms") && !text.contains('\x1b'),
            "{text}"
        );
        assert!(
            line("loading").contains("loading 40 %") && line("loading").contains("1 of 4"),
            "{text}"
        );
        assert!(
            line("qwen").contains("5.00 GB") && line("qwen").contains("shed, barn"),
            "{text}"
        );
        assert!(line("cdcdcdcdcd").contains("relay"), "{text}");
        // What lets others in is not for whoever looks over somebody's shoulder.
        assert!(!text.contains(INVITE));
    }

    #[test]
    fn a_machine_alone_has_no_empty_tables() {
        let mut status = example::status();
        status.mesh = None;
        status.clients.clear();
        status.this.models.clear();
        status.this.on_disk.clear();
        let text = text(&status);
        assert!(text.contains("alone, in no mesh"), "{text}");
        assert!(!text.contains("CLIENT") && !text.contains("MODEL"), "{text}");
    }

    #[test]
    fn programs_see_a_line() {
        let line = written(&example::status(), LogFormat::Json);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), example::status());
    }

    #[test]
    fn a_shorter_text_leaves_nothing_of_a_longer_one() {
        let mut screen = Screen::default();
        assert_eq!(screen.redraw("long\n"), "\x1b[2J\x1b[Hlong\x1b[K\n\x1b[J");
        assert_eq!(screen.redraw("s\n"), "\x1b[Hs\x1b[K\n\x1b[J");
    }
}
