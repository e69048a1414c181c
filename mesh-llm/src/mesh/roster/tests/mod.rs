//! What follows from which acts.

mod bounds;
mod bytes;
mod certificates;
mod forged;
mod order;
mod removals;
mod standings;
mod tokens;

use super::{Act, ActId, Added, Roster, SignedAct, Standing, TokenUse};
use crate::mesh::id::{MeshId, NodeId, Role, TokenId, UnixSeconds};
use iroh_base::SecretKey;
use std::num::NonZeroU32;
use std::sync::LazyLock;

/// Keys of players; the first is the founder's.
static KEYS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    (0..8)
        .map(|player| SecretKey::from_bytes(&[player + 1; 32]))
        .collect()
});

static NODES: LazyLock<Vec<NodeId>> = LazyLock::new(|| KEYS.iter().map(SecretKey::public).collect());

const FOUNDER: usize = 0;
const ANNE: usize = 1;
const BEN: usize = 2;
const CLEO: usize = 3;
const DAN: usize = 4;

fn mesh() -> MeshId {
    MeshId(NODES[FOUNDER])
}

/// By somebody who was never removed.
fn sign(by: usize, act: Act) -> SignedAct {
    sign_in(0, by, act)
}

fn sign_in(generation: u32, by: usize, act: Act) -> SignedAct {
    SignedAct::sign(&KEYS[by], mesh(), generation, act)
}

fn token(number: u8) -> TokenId {
    TokenId([number; 16])
}

fn unlimited(number: u8) -> TokenUse {
    TokenUse {
        token: token(number),
        uses: None,
    }
}

fn limited(number: u8, uses: u32) -> TokenUse {
    TokenUse {
        token: token(number),
        uses: NonZeroU32::new(uses),
    }
}

fn at(seconds: u64) -> UnixSeconds {
    UnixSeconds(seconds)
}

/// An admission of the first generation without a token.
fn admit(subject: usize, role: Role, seconds: u64) -> Act {
    admit_by(vec![], subject, role, seconds, 0)
}

fn admit_by(tokens: Vec<TokenUse>, subject: usize, role: Role, seconds: u64, generation: u32) -> Act {
    Act::Admit {
        subject: NODES[subject],
        role,
        tokens,
        models: None,
        at: at(seconds),
        generation,
    }
}

/// A removal by somebody who knew of nothing that the subject signed.
fn remove(subject: usize, generation: u32) -> Act {
    remove_but(subject, generation, [])
}

fn remove_but(subject: usize, generation: u32, stand: impl IntoIterator<Item = ActId>) -> Act {
    Act::Remove {
        subject: NODES[subject],
        generation,
        stand: stand.into_iter().collect(),
        at: at(50),
    }
}

/// A roster to which these acts were added in this order, each for the first time.
fn roster(acts: impl IntoIterator<Item = SignedAct>) -> Roster {
    let mut roster = Roster::new(mesh());
    for act in acts {
        let added = roster.add(act).unwrap();
        assert_ne!(added, Added::Known);
    }
    roster
}

/// The roster of a mesh that has been at work: Anne is a node, Ben one by her, Cleo a worker, Dan a client.
fn at_work() -> Roster {
    roster([
        sign(FOUNDER, admit(ANNE, Role::Node, 1)),
        sign(ANNE, admit(BEN, Role::Node, 2)),
        sign(BEN, admit(CLEO, Role::Worker, 3)),
        sign(BEN, admit(DAN, Role::Client, 4)),
    ])
}

impl Roster {
    fn role_of(&self, player: usize) -> Option<Role> {
        self.standing(NODES[player]).map(|standing| standing.role)
    }

    fn is_member(&self, player: usize) -> bool {
        self.standing(NODES[player]).is_some()
    }

    /// Adds an act that counts at once.
    fn take(&mut self, act: SignedAct) {
        assert_eq!(self.add(act), Ok(Added::New));
    }

    /// Removes somebody as its machine would.
    fn kick(&mut self, by: usize, whom: usize) -> SignedAct {
        let act = self.remove(&KEYS[by], NODES[whom], at(50)).unwrap();
        self.take(act.clone());
        act
    }

    /// Admits somebody as its machine would.
    fn let_in(&mut self, by: usize, whom: usize, role: Role) -> SignedAct {
        let act = self.admit(&KEYS[by], NODES[whom], role, vec![], None, at(60));
        let act = act.unwrap();
        self.take(act.clone());
        act
    }

    fn listed(&self) -> Vec<(NodeId, Standing)> {
        self.members().collect()
    }
}
