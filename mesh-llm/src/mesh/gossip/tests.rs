//! What is told to whom, and what is believed.

use super::*;
use iroh_base::SecretKey;
use proptest::prelude::*;
use std::sync::LazyLock;

static KEYS: LazyLock<Vec<(SecretKey, NodeId)>> = LazyLock::new(|| {
    let keys = (1..=30).map(|number| SecretKey::from_bytes(&[number; 32]));
    let mut keys: Vec<_> = keys.map(|key| (key.clone(), key.public())).collect();
    // By their ids, so that node 0 begins to compare with all others.
    keys.sort_by_key(|(_, id)| *id);
    keys
});

fn id(node: usize) -> NodeId {
    KEYS[node].1
}

fn mesh() -> MeshId {
    MeshId(id(0))
}

fn signed(node: usize, boot: u64, version: u64) -> SignedState {
    signed_for(mesh(), node, boot, version)
}

fn signed_for(mesh: MeshId, node: usize, boot: u64, version: u64) -> SignedState {
    NodeState::bare(id(node), Boot(boot), version).sign(mesh, &KEYS[node].0)
}

fn gossip(node: usize) -> Gossip {
    let mut gossip = Gossip::new(mesh(), id(node), 1);
    gossip.set_own(signed(node, 1, 1)).unwrap();
    gossip
}

fn connect(gossip: &mut Gossip, peers: impl Iterator<Item = usize>) {
    gossip.peers(&peers.map(id).collect());
    sent(gossip);
}

fn sent(gossip: &mut Gossip) -> Vec<Output> {
    std::iter::from_fn(|| gossip.poll()).collect()
}

fn hear(gossip: &mut Gossip, from: usize, states: Vec<SignedState>) {
    gossip.receive(id(from), Message::States(states), &|_| true);
}

fn stamp(gossip: &Gossip, node: usize) -> Option<(u64, u64)> {
    gossip.state(id(node)).map(|state| (state.boot.0, state.version))
}

/// Lets some nodes talk until none has anything to say; says how many messages it took.
fn talk(nodes: &mut [&mut Gossip]) -> usize {
    let mut messages = 0;
    loop {
        let mut mail = Vec::new();
        for node in nodes.iter_mut() {
            let from = node.me;
            mail.extend(sent(node).into_iter().map(|output| (from, output)));
        }
        if mail.is_empty() {
            return messages;
        }
        messages += mail.len();
        for (from, Output { to, message }) in mail {
            let receiver = nodes.iter_mut().find(|node| node.me == to).unwrap();
            let message = Message::decode(&message.encode()).unwrap();
            receiver.receive(from, message, &|_| true);
        }
    }
}

#[test]
fn an_own_change_goes_to_all_peers_of_a_small_mesh_and_to_sixteen_of_a_large_one() {
    for (peers, told) in [(1, 1), (16, 16), (25, 16)] {
        let mut gossip = gossip(0);
        connect(&mut gossip, 1..=peers);
        gossip.set_own(signed(0, 1, 2)).unwrap();
        let to: BTreeSet<NodeId> = sent(&mut gossip).into_iter().map(|output| output.to).collect();
        assert_eq!(to.len(), told);
    }
}

#[test]
fn news_are_passed_to_three_others_once() {
    let mut gossip = gossip(0);
    connect(&mut gossip, 1..=10);
    hear(&mut gossip, 1, vec![signed(2, 1, 1), signed(3, 1, 1)]);
    let passed = sent(&mut gossip);
    assert_eq!(passed.len(), 3);
    let whole = Message::States(vec![signed(2, 1, 1), signed(3, 1, 1)]);
    assert!(
        passed
            .iter()
            .all(|output| output.to != id(1) && output.message == whole)
    );
    hear(&mut gossip, 4, vec![signed(2, 1, 1)]);
    assert_eq!(sent(&mut gossip), []);
}

#[test]
fn the_newer_state_wins_whatever_comes_first() {
    let mut gossip = gossip(0);
    for (heard, kept) in [
        ((5, 3), (5, 3)),
        ((5, 2), (5, 3)),
        ((4, 9), (5, 3)),
        ((6, 1), (6, 1)),
        ((5, 9), (6, 1)),
    ] {
        hear(&mut gossip, 1, vec![signed(2, heard.0, heard.1)]);
        assert_eq!(stamp(&gossip, 2), Some(kept));
    }
}

#[test]
fn whatever_differs_is_equal_after_one_comparison() {
    let (mut a, mut b) = (gossip(0), gossip(1));
    hear(&mut a, 9, vec![signed(2, 1, 1), signed(3, 1, 5), signed(4, 1, 1)]);
    hear(&mut b, 9, vec![signed(3, 1, 7), signed(4, 1, 1), signed(5, 1, 1)]);
    a.peers(&BTreeSet::from([id(1)]));
    b.peers(&BTreeSet::from([id(0)]));
    // The digest, versions, what the other lacks, what is wanted, and that.
    assert_eq!(talk(&mut [&mut a, &mut b]), 5);
    assert_eq!(a.store.digest(), b.store.digest());
    assert_eq!(stamp(&a, 3), Some((1, 7)));
    assert!(a.states().eq(b.states()));
}

#[test]
fn where_nothing_differs_a_digest_a_second_is_all() {
    let (mut a, mut b) = (gossip(0), gossip(1));
    connect(&mut a, 1..2);
    connect(&mut b, 0..1);
    hear(&mut a, 1, vec![signed(1, 1, 1)]);
    hear(&mut b, 0, vec![signed(0, 1, 1)]);
    for second in 1..=10 {
        a.tick(Duration::from_secs(second));
        a.tick(Duration::from_secs(second));
        assert_eq!(talk(&mut [&mut a, &mut b]), 1);
    }
}

#[test]
fn a_departure_outlives_its_rumours() {
    let mut gossip = gossip(0);
    hear(&mut gossip, 1, vec![signed(2, 5, 3)]);
    gossip.forget(id(2), Boot(5));
    assert_eq!(stamp(&gossip, 2), None);
    // Not even what it said last, and this node had not heard.
    for rumour in [(5, 3), (5, 2), (4, 9), (5, 4), (5, u64::MAX)] {
        hear(&mut gossip, 1, vec![signed(2, rumour.0, rumour.1)]);
        assert_eq!(stamp(&gossip, 2), None, "{rumour:?}");
    }
    hear(&mut gossip, 1, vec![signed(2, 6, 1)]);
    assert_eq!(stamp(&gossip, 2), Some((6, 1)), "it came back in a new run");
    gossip.forget(id(2), Boot(5));
    assert_eq!(
        stamp(&gossip, 2),
        Some((6, 1)),
        "the end of a run is none of the next"
    );
}

#[test]
fn a_node_that_was_never_heard_can_be_forgotten() {
    let mut gossip = gossip(0);
    gossip.forget(id(2), Boot(5));
    hear(&mut gossip, 1, vec![signed(2, 5, 1)]);
    assert_eq!(stamp(&gossip, 2), None);
}

#[test]
fn only_so_many_departures_are_remembered() {
    let mut store = Store::default();
    let nodes = (0..=store::MAX_FORGOTTEN as u64).filter_map(|number| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(&bytes).ok()
    });
    let nodes: Vec<NodeId> = nodes.collect();
    for _ in 0..2 {
        for &node in &nodes {
            store.forget(node, Boot(1));
        }
    }
    assert!(store.forgotten_count() <= store::MAX_FORGOTTEN);
}

#[test]
fn states_of_strangers_and_forgeries_go_by_unheard() {
    let mut gossip = gossip(0);
    connect(&mut gossip, 1..5);
    gossip.changed();
    let member = |node: NodeId| node != id(3);
    gossip.receive(id(1), Message::States(vec![signed(3, 1, 1)]), &member);
    gossip.receive(id(3), Message::States(vec![signed(2, 1, 1)]), &member);
    hear(&mut gossip, 1, vec![signed_for(MeshId(id(1)), 2, 1, 1)]);
    assert_eq!(gossip.states().count(), 1);
    assert!(!gossip.changed());
    assert_eq!(sent(&mut gossip), []);
}

#[test]
fn a_node_learns_that_its_clock_was_set_back_and_goes_on() {
    let (mut me, mut other) = (gossip(0), gossip(1));
    hear(&mut other, 9, vec![signed(0, 90, 7)]);
    me.peers(&BTreeSet::from([id(1)]));
    talk(&mut [&mut me, &mut other]);
    assert_eq!(
        me.own_is_outdated(),
        Some(Stamp {
            boot: Boot(90),
            version: 7
        })
    );
    assert_eq!(stamp(&me, 0), Some((1, 1)), "nobody else says what it is");
    me.set_own(signed(0, 91, 1)).unwrap();
    assert_eq!(me.own_is_outdated(), None);
    talk(&mut [&mut me, &mut other]);
    me.tick(Duration::from_secs(1));
    talk(&mut [&mut me, &mut other]);
    assert_eq!(stamp(&other, 0), Some((91, 1)));
}

#[test]
fn a_nodes_own_state_is_its_own_and_newer() {
    let mut gossip = gossip(0);
    assert_eq!(
        gossip.set_own(signed(1, 1, 2)),
        Err(NotOwn::Other {
            node: id(1),
            me: id(0)
        })
    );
    let stamp = Stamp {
        boot: Boot(1),
        version: 1,
    };
    assert_eq!(
        gossip.set_own(signed(0, 1, 1)),
        Err(NotOwn::NotNewer {
            given: stamp,
            sent: stamp
        })
    );
}

#[test]
fn changes_are_told_once() {
    let mut gossip = gossip(0);
    assert!(gossip.changed() && !gossip.changed());
    hear(&mut gossip, 1, vec![signed(2, 1, 1)]);
    assert!(gossip.changed());
    gossip.forget(id(2), Boot(1));
    assert!(gossip.changed());
    gossip.forget(id(2), Boot(1));
    assert!(!gossip.changed());
}

#[test]
fn messages_are_refused_by_their_claim() {
    for (variant, limit) in [(0, MAX_STATES), (2, MAX_NODES), (3, MAX_NODES)] {
        let claim = |count: usize| [vec![variant], postcard::to_allocvec(&count).unwrap()].concat();
        assert_eq!(Message::decode(&claim(limit + 1)), Err(Malformed));
        assert_eq!(Message::decode(&claim(usize::MAX)), Err(Malformed));
        assert!(Message::decode(&claim(0)).is_ok());
    }
}

#[test]
fn the_bytes_of_messages_are_those_of_release_0_1() {
    let digest = Message::Digest(Digest32([7; 32]));
    assert_eq!(digest.encode(), [vec![1], vec![7; 32]].concat());
    let heard = Heard {
        node: id(0),
        stamp: Stamp {
            boot: Boot(300),
            version: 5,
        },
    };
    let versions = Message::Versions(vec![heard]);
    assert_eq!(
        versions.encode(),
        [vec![2, 1], id(0).to_vec(), vec![0xac, 2, 5]].concat()
    );
    let wanted = Message::Wanted(vec![id(0)]);
    assert_eq!(wanted.encode(), [vec![3, 1], id(0).to_vec()].concat());
    for message in [digest, versions, wanted, Message::States(vec![signed(0, 1, 1)])] {
        let newer = [message.encode(), b"of a later release".to_vec()].concat();
        assert_eq!(Message::decode(&newer), Ok(message));
    }
}

#[test]
fn a_digest_is_the_sha_256_of_sorted_names() {
    let gossip = gossip(0);
    let mut names = id(0).to_vec();
    names.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    use sha2::Digest as _;
    assert_eq!(
        gossip.store.digest().0,
        <[u8; 32]>::from(sha2::Sha256::digest(&names))
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::decode(&bytes) {
            gossip(0).receive(id(1), message, &|_| true);
        }
    }
}
