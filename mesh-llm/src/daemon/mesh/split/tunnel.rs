//! Carries a split's streams: from a child through its door and the mesh to another machine, and there to the child
//! that they are for.

use super::read_name;
use crate::mesh::id::NodeId;
use crate::mesh::wire::{GroupId, Open};
use crate::mesh::{Mesh, PeerStream};
use llama_engine::rpc::door::{self, Door, KEY_BYTES, Key};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How long who knocks may take to say what it wants.
const KNOCK_WITHIN: Duration = Duration::from_secs(2);

/// How long a stream to another machine may take.
const OPEN_WITHIN: Duration = Duration::from_secs(4);

/// Who knocks at once: a group has fewer processes.
const MOST_CALLERS: usize = 64;

/// The pause after a caller that could not be taken, such as for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// Bytes that are carried at once.
const PIECE: usize = 64 << 10;

/// Whom a door leads to.
#[derive(Debug)]
struct Pass {
    mesh: Mesh,
    key: Key,
    group: GroupId,
    nodes: Vec<NodeId>,
}

/// An open door; dropping it closes it, and ends all streams through it.
#[derive(Debug)]
pub(super) struct Doorway {
    door: Door,
    task: AbortHandle,
}

impl Drop for Doorway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doorway {
    /// Opens a door to these machines' parts in a group.
    ///
    /// # Errors
    /// Where the system has no port or no random numbers.
    pub(super) async fn open(mesh: Mesh, group: GroupId, nodes: Vec<NodeId>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let key = Key(key);
        let pass = Pass {
            mesh,
            key,
            group,
            nodes,
        };
        let task = tokio::spawn(keep(listener, Arc::new(pass))).abort_handle();
        Ok(Self {
            door: Door { address, key },
            task,
        })
    }

    /// For children.
    pub(super) fn door(&self) -> Door {
        self.door
    }
}

async fn keep(listener: TcpListener, pass: Arc<Pass>) {
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if callers.len() < MOST_CALLERS => match accepted {
                Ok((stream, _)) => {
                    callers.spawn(lead(stream, pass.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a process of a split is not heard");
                    sleep(REST).await;
                }
            },
            Some(_) = callers.join_next() => {}
        }
    }
}

/// Leads who knocks to where it wants.
async fn lead(mut caller: TcpStream, pass: Arc<Pass>) {
    let Ok(Ok(Some(name))) = timeout(KNOCK_WITHIN, hear(&mut caller, pass.key)).await else {
        // Somebody else of this machine: it hears nothing.
        return;
    };
    let opened = timeout(OPEN_WITHIN, through(&pass, &name)).await;
    let opened = opened.unwrap_or_else(|_| Err("it does not answer".to_owned()));
    let answer = door::answer(opened.as_ref().err().map(String::as_str));
    let told = caller
        .write_all(&answer)
        .await
        .and_then(|()| caller.set_nodelay(true));
    if let (Ok(()), Ok(stream)) = (told, opened) {
        carry(caller, stream).await;
    }
}

/// Where somebody with the key wants to go; none: it has another one.
async fn hear(caller: &mut TcpStream, key: Key) -> io::Result<Option<String>> {
    let mut said = [0; KEY_BYTES + 1];
    caller.read_exact(&mut said).await?;
    let [shown @ .., length] = said;
    if !bool::from(shown.ct_eq(&key.0)) {
        return Ok(None);
    }
    let mut name = vec![0; length.into()];
    caller.read_exact(&mut name).await?;
    Ok(String::from_utf8(name).ok())
}

async fn through(pass: &Pass, name: &str) -> Result<PeerStream, String> {
    let known = read_name(name).filter(|(node, group)| *group == pass.group && pass.nodes.contains(node));
    let Some((node, group)) = known else {
        return Err("it does not belong to this group".to_owned());
    };
    let opened = pass.mesh.open(node, &Open::Channel { group }).await;
    opened.map_err(|error| error.to_string())
}

/// Carries a peer's stream to the child that listens there.
pub(super) async fn deliver(stream: PeerStream, address: SocketAddr) {
    match TcpStream::connect(address).await {
        Ok(child) => match child.set_nodelay(true) {
            Ok(()) => carry(child, stream).await,
            Err(error) => tracing::debug!(%error, "a stream of a split cannot be delivered"),
        },
        // Its end is told by who watches over it.
        Err(error) => tracing::debug!(%error, "a process of a split is not there"),
    }
}

/// Carries bytes both ways, until one side has ended.
async fn carry(mut child: TcpStream, mut stream: PeerStream) {
    if let Err(error) = copy_bidirectional_with_sizes(&mut child, &mut stream, PIECE, PIECE).await {
        tracing::debug!(%error, "a stream of a split broke off");
    }
}
