//! A status, for tests.

use super::{
    ClientStatus, DeviceStatus, GroupMachine, GroupStatus, MemoryStatus, MeshStatus, ModelStatus, NodeStatus,
    PathKind, Role, ServedModel, Stage, Status, StoredModel,
};

/// What its invite is.
pub(crate) const INVITE: &str = "the-invite";

/// A machine in a mesh, with everything that can be shown.
pub(crate) fn status() -> Status {
    let id = "ab".repeat(32);
    Status {
        version: "0.1.0".into(),
        home: Some("/home/u/.local/state/mesh-llm".into()),
        this: NodeStatus {
            id: id.clone(),
            short: id[..10].into(),
            name: "shed".into(),
            role: Role::Node,
            version: "0.1.0".into(),
            rtt_ms: None,
            path: Some(PathKind::Direct),
            memory: MemoryStatus {
                total_bytes: 32_000_000_000,
                offered_bytes: 24_000_000_000,
            },
            devices: vec![DeviceStatus {
                name: "CUDA0".into(),
                memory_bytes: 16_000_000_000,
            }],
            models: vec![ServedModel {
                name: "tiny".into(),
                stage: Stage::Loading,
                percent: Some(40),
                context: 4096,
                slots: 4,
                busy: 1,
                waiting: 0,
            }],
            addresses: vec!["192.168.1.5:4433".into()],
            on_disk: vec![StoredModel {
                name: "qwen".into(),
                bytes: 5_000_000_000,
            }],
        },
        mesh: Some(MeshStatus {
            id: id.clone(),
            invite: Some(INVITE.into()),
            role: Role::Node,
        }),
        nodes: Vec::new(),
        clients: vec![ClientStatus {
            id: "cd".repeat(32),
            short: "cdcdcdcdcd".into(),
            name: None,
            version: "0.1.0".into(),
            rtt_ms: Some(20.5),
            path: Some(PathKind::Relay),
        }],
        models: vec![ModelStatus {
            name: "tiny".into(),
            nodes: vec![id.clone()],
        }],
        groups: vec![GroupStatus {
            model: "big".into(),
            epoch: 3,
            machines: vec![GroupMachine {
                node: id,
                name: "shed".into(),
                layers: 20,
            }],
        }],
        notice: Some("Waiting for more peers".into()),
    }
}
