//! What is shown of this machine and its mesh.

use super::super::serving::ByModel;
use crate::engine::{State, downloading, waiting_for};
use crate::manage::{
    ClientStatus, DeviceStatus, GroupMachine, GroupStatus, MemoryStatus, MeshStatus, ModelStatus, NodeStatus,
    PathKind, ServedModel, Stage as ShownStage, Status, StoredModel,
};
use crate::mesh::core::{ClientSeen, Path, Seen, View};
use crate::mesh::id::{NodeId, Role};
use crate::mesh::state::{ModelState, NodeState, Stage};
use crate::mesh::{Mesh, Offer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::watch;

/// A machine that is in no mesh.
pub(super) fn alone(home: &std::path::Path, offer: &Offer) -> Status {
    let this = NodeStatus {
        id: String::new(),
        short: String::new(),
        name: offer.name.clone(),
        role: Role::Node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rtt_ms: None,
        path: None,
        memory: MemoryStatus {
            total_bytes: offer.memory.total_bytes,
            offered_bytes: offer.memory.offered_bytes,
        },
        devices: offer.devices.iter().map(device).collect(),
        models: offer.models.iter().map(model).collect(),
        addresses: Vec::new(),
        on_disk: offer.on_disk.iter().map(stored).collect(),
    };
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        home: Some(home.display().to_string()),
        this,
        mesh: None,
        nodes: Vec::new(),
        clients: Vec::new(),
        models: Vec::new(),
        groups: Vec::new(),
        notice: None,
    };
    status.models = models(&status);
    status
}

/// Says what changes.
pub(super) async fn follow(
    mesh: Option<Mesh>,
    home: PathBuf,
    mut offer: watch::Receiver<Offer>,
    (mut engine, mut others): (watch::Receiver<State>, watch::Receiver<ByModel<State>>),
    mut invite: watch::Receiver<Option<String>>,
    status: watch::Sender<Status>,
) {
    let mut view = mesh.as_ref().map(Mesh::view);
    loop {
        let mut now = alone(&home, &offer.borrow_and_update());
        {
            let (engine, others) = (engine.borrow_and_update(), others.borrow_and_update());
            refine(&mut now.this, &engine, &others);
            let notices = std::iter::once(&*engine)
                .chain(others.values())
                .filter_map(notice);
            now.notice = notices.reduce(|all, notice| format!("{all}; {notice}"));
        }
        if let Some(view) = &mut view {
            let view = view.borrow_and_update();
            now.groups = groups(&view, &offer.borrow());
            in_mesh(&mut now, &view, invite.borrow_and_update().clone());
        }
        now.models = models(&now);
        status.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
        let seen = async {
            match &mut view {
                Some(view) => view.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = seen => if changed.is_err() { return },
            changed = offer.changed() => if changed.is_err() { return },
            Ok(()) = invite.changed() => {}
            Ok(()) = engine.changed() => {}
            Ok(()) = others.changed() => {}
        }
    }
}

/// Of its own engines this machine knows more than it tells others.
fn refine(this: &mut NodeStatus, engine: &State, others: &ByModel<State>) {
    for model in &mut this.models {
        let stage = match others.get(&model.name).unwrap_or(engine) {
            State::Starting => ShownStage::Starting,
            State::Restarting { .. } | State::Lost { .. } => ShownStage::Restarting,
            State::Waiting { .. } => ShownStage::Waiting,
            _ => continue,
        };
        (model.stage, model.percent) = (stage, None);
    }
}

/// Why this machine does not serve its own model.
fn notice(engine: &State) -> Option<String> {
    match engine {
        State::Waiting { message } => Some(waiting_for(message)),
        State::Elsewhere { message } | State::Lost { message } => Some(message.clone()),
        State::Downloading { model, percent, by } if !by.is_empty() => Some(downloading(model, *percent, by)),
        _ => None,
    }
}

/// The models that machines serve together.
fn groups(view: &View, own: &Offer) -> Vec<GroupStatus> {
    let name = |node: NodeId| {
        let seen = view.nodes.iter().find(|seen| seen.state.node == node);
        match seen {
            Some(seen) => seen.state.name.clone(),
            None if node == view.me => own.name.clone(),
            None => String::new(),
        }
    };
    let machine = |node: NodeId, layers| GroupMachine {
        node: node.to_string(),
        name: name(node),
        layers,
    };
    let others = view.nodes.iter().flat_map(|seen| {
        let groups = seen.state.groups.iter();
        groups.map(|group| (seen.state.node, group))
    });
    let own = own.groups.iter().map(|group| (view.me, group));
    own.chain(others)
        .map(|(host, group)| {
            let workers = group.workers.iter();
            let workers = workers.map(|worker| machine(worker.node, worker.layers));
            GroupStatus {
                model: group.model.clone(),
                epoch: group.epoch,
                machines: std::iter::once(machine(host, group.own_layers))
                    .chain(workers)
                    .collect(),
            }
        })
        .collect()
}

fn in_mesh(status: &mut Status, view: &View, invite: Option<String>) {
    status.this.id = view.me.to_string();
    status.this.short = view.me.fmt_short().to_string();
    let role = view.role.unwrap_or(Role::Node);
    status.this.role = role;
    status.mesh = Some(MeshStatus {
        id: view.mesh.0.to_string(),
        invite,
        role,
    });
    status.nodes = view.nodes.iter().map(node).collect();
    status.clients = view.clients.iter().map(client).collect();
}

fn node(seen: &Seen) -> NodeStatus {
    let NodeState {
        node,
        name,
        program,
        role: its,
        addresses,
        memory,
        devices,
        models,
        on_disk,
        ..
    } = &seen.state;
    NodeStatus {
        id: node.to_string(),
        short: node.fmt_short().to_string(),
        name: name.clone(),
        role: *its,
        version: program.clone(),
        rtt_ms: rtt_ms(seen.path),
        path: path(seen.path),
        memory: MemoryStatus {
            total_bytes: memory.total_bytes,
            offered_bytes: memory.offered_bytes,
        },
        devices: devices.iter().map(device).collect(),
        models: models.iter().map(model).collect(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        on_disk: on_disk.iter().map(stored).collect(),
    }
}

fn client(seen: &ClientSeen) -> ClientStatus {
    ClientStatus {
        id: seen.node.to_string(),
        short: seen.node.fmt_short().to_string(),
        name: None,
        version: String::new(),
        rtt_ms: rtt_ms(seen.path),
        path: path(seen.path),
    }
}

fn device(device: &crate::mesh::state::Device) -> DeviceStatus {
    DeviceStatus {
        name: device.name.clone(),
        memory_bytes: device.memory_bytes,
    }
}

fn stored(model: &crate::mesh::state::OnDisk) -> StoredModel {
    StoredModel {
        name: model.name.clone(),
        bytes: model.bytes,
    }
}

fn model(state: &ModelState) -> ServedModel {
    let (stage, percent) = match state.stage {
        Stage::Downloading { percent } => (ShownStage::Downloading, percent),
        Stage::Loading { percent } => (ShownStage::Loading, Some(percent)),
        Stage::Ready => (ShownStage::Ready, None),
        Stage::Failed => (ShownStage::Failed, None),
        Stage::Waiting => (ShownStage::Waiting, None),
    };
    ServedModel {
        name: state.name.clone(),
        stage,
        percent,
        context: state.context,
        slots: state.slots,
        busy: state.busy,
        waiting: state.waiting,
    }
}

/// Which models can be asked for, and where.
fn models(status: &Status) -> Vec<ModelStatus> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in std::iter::once(&status.this).chain(&status.nodes) {
        for model in node
            .models
            .iter()
            .filter(|model| model.stage == ShownStage::Ready)
        {
            by_name
                .entry(model.name.clone())
                .or_default()
                .push(node.id.clone());
        }
    }
    by_name
        .into_iter()
        .map(|(name, nodes)| ModelStatus { name, nodes })
        .collect()
}

fn rtt_ms(path: Option<Path>) -> Option<f64> {
    // Tenths of a millisecond: what is more exact is noise.
    path.map(|path| (path.rtt.as_secs_f64() * 1e4).round() / 10.0)
}

fn path(path: Option<Path>) -> Option<PathKind> {
    path.map(|path| match path.relayed {
        true => PathKind::Relay,
        false => PathKind::Direct,
    })
}
