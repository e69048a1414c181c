//! What one member believes, and what it doesn't.

use super::tempo::{PROBE_PERIOD, PROBE_TIMEOUT};
use super::*;
use iroh_base::SecretKey;
use proptest::prelude::*;
use std::sync::LazyLock;

static IDS: LazyLock<Vec<NodeId>> = LazyLock::new(|| {
    (1..=9)
        .map(|number| SecretKey::from_bytes(&[number; 32]).public())
        .collect()
});

const BOOT: u64 = 1_000;

fn member(node: usize, boot: u64) -> Member {
    Member {
        node: IDS[node],
        boot: Boot(boot),
    }
}

fn new(node: usize) -> Membership {
    Membership::new(member(node, BOOT), node as u64)
}

fn all(_: NodeId) -> bool {
    true
}

fn outputs(membership: &mut Membership) -> Vec<Output> {
    std::iter::from_fn(|| membership.poll()).collect()
}

fn packets(membership: &mut Membership) -> Vec<(NodeId, Vec<u8>)> {
    let sent = outputs(membership).into_iter().filter_map(|output| match output {
        Output::Send { to, packet } => Some((to, packet)),
        Output::Up(_) | Output::Down(_) | Output::Boot(_) => None,
    });
    sent.collect()
}

fn alive(membership: &Membership) -> Vec<Member> {
    membership.alive().collect()
}

/// A packet from node `from` to node 0.
fn packet(from: usize, message: foca::Message<Claim>, updates: Vec<foca::Member<Claim>>) -> Vec<u8> {
    let header = foca::Header {
        src: Claim::from(member(from, BOOT)),
        src_incarnation: 0,
        dst: Claim::from(member(0, BOOT)),
        message,
    };
    Packet { header, updates }.write()
}

fn alive_update(node: usize, boot: u64) -> foca::Member<Claim> {
    foca::Member::alive(Claim::from(member(node, boot)))
}

const NOW: Duration = Duration::ZERO;

#[test]
fn whom_it_met_is_alive() {
    let mut me = new(0);
    me.met(NOW, member(1, BOOT));
    assert_eq!(alive(&me), [member(1, BOOT)]);
    let told = outputs(&mut me);
    assert!(told.contains(&Output::Up(member(1, BOOT))));
    assert!(
        told.iter()
            .any(|output| matches!(output, Output::Send { to, .. } if *to == IDS[1]))
    );
    me.met(NOW, member(1, BOOT));
    assert_eq!(outputs(&mut me), [], "it is known already");
}

#[test]
fn the_later_run_wins() {
    let mut me = new(0);
    me.met(NOW, member(1, BOOT));
    me.met(NOW, member(1, BOOT + 5));
    assert_eq!(alive(&me), [member(1, BOOT + 5)]);
    assert!(outputs(&mut me).contains(&Output::Up(member(1, BOOT + 5))));
    me.met(NOW, member(1, BOOT));
    assert_eq!(alive(&me), [member(1, BOOT + 5)]);
}

#[test]
fn a_packet_counts_only_from_who_signs_for_it() {
    let mut me = new(0);
    let ping = packet(1, foca::Message::Ping(1), vec![]);
    me.receive(NOW, IDS[2], &ping, &all);
    assert_eq!((alive(&me), outputs(&mut me)), (vec![], vec![]));
    me.receive(NOW, IDS[1], &ping, &|node| node != IDS[1]);
    assert_eq!((alive(&me), outputs(&mut me)), (vec![], vec![]));
    me.receive(NOW, IDS[1], &ping, &all);
    assert_eq!(alive(&me), [member(1, BOOT)]);
    assert!(!packets(&mut me).is_empty(), "the ping is answered");
}

#[test]
fn strangers_are_never_added_by_rumours_nor_written_to() {
    let mut me = new(0);
    let is_member = |node: NodeId| node != IDS[3];
    let mut off_curve = alive_update(4, BOOT);
    while NodeId::from_bytes(&off_curve.id().node).is_ok() {
        let mut claim = *off_curve.id();
        claim.node[0] = claim.node[0].wrapping_add(1);
        off_curve = foca::Member::alive(claim);
    }
    let updates = vec![alive_update(2, BOOT), alive_update(3, BOOT), off_curve];
    me.receive(
        NOW,
        IDS[1],
        &packet(1, foca::Message::Gossip, updates),
        &is_member,
    );
    let mut expected = [member(1, BOOT), member(2, BOOT)];
    expected.sort();
    assert_eq!(alive(&me), expected);
    packets(&mut me);
    let target = Claim::from(member(3, BOOT));
    let request = foca::Message::PingReq {
        target,
        probe_number: 1,
    };
    me.receive(NOW, IDS[1], &packet(1, request, vec![]), &is_member);
    assert_eq!(packets(&mut me), []);
}

#[test]
fn nobody_can_use_up_anothers_boots() {
    let mut me = new(0);
    let last = foca::Member::down(Claim::from(member(2, u64::MAX)));
    let mine = foca::Member::down(Claim::from(member(0, u64::MAX)));
    me.receive(
        NOW,
        IDS[1],
        &packet(1, foca::Message::Gossip, vec![last, mine]),
        &all,
    );
    me.met(NOW, member(2, BOOT));
    assert!(alive(&me).contains(&member(2, BOOT)));
    assert!(
        !outputs(&mut me)
            .iter()
            .any(|output| matches!(output, Output::Boot(_)))
    );
}

#[test]
fn who_is_declared_down_takes_the_next_boot() {
    let mut me = new(0);
    me.met(NOW, member(1, BOOT));
    outputs(&mut me);
    let down = foca::Member::down(Claim::from(member(0, BOOT)));
    me.receive(NOW, IDS[1], &packet(1, foca::Message::Gossip, vec![down]), &all);
    assert!(outputs(&mut me).contains(&Output::Boot(Boot(BOOT + 1))));
}

#[test]
fn who_is_known_by_a_later_boot_takes_the_next_one_at_once() {
    let mut me = new(0);
    let later = BOOT + 3_600_000;
    me.receive(
        NOW,
        IDS[1],
        &packet(1, foca::Message::Gossip, vec![alive_update(0, later)]),
        &all,
    );
    assert!(outputs(&mut me).contains(&Output::Boot(Boot(later + 1))));
}

#[test]
fn who_comes_with_an_earlier_boot_is_told_the_later_one() {
    let (mut old, mut me) = (new(0), new(1));
    me.met(NOW, member(0, BOOT + 90));
    packets(&mut me);
    me.receive(
        NOW,
        IDS[0],
        &{
            old.met(NOW, member(1, BOOT));
            packets(&mut old).remove(0).1
        },
        &all,
    );
    for (to, packet) in packets(&mut me) {
        assert_eq!(to, IDS[0]);
        old.receive(NOW, IDS[1], &packet, &all);
    }
    assert!(outputs(&mut old).contains(&Output::Boot(Boot(BOOT + 91))));
}

#[test]
fn who_writes_to_an_earlier_run_is_told_of_this_one() {
    let (mut me, mut other) = (new(0), new(1));
    let ping = packet(1, foca::Message::Ping(1), vec![]);
    me.reboot(NOW, Boot(BOOT + 1));
    outputs(&mut me);
    me.receive(NOW, IDS[1], &ping, &all);
    for (_, packet) in packets(&mut me) {
        other.receive(NOW, IDS[0], &packet, &all);
    }
    assert_eq!(alive(&other), [member(0, BOOT + 1)]);
}

#[test]
fn who_was_removed_is_down_at_once_and_stays_so() {
    let mut me = new(0);
    me.met(NOW, member(1, BOOT));
    outputs(&mut me);
    me.removed(NOW, IDS[1]);
    assert_eq!(outputs(&mut me), [Output::Down(member(1, BOOT))]);
    me.met(NOW, member(1, BOOT + 1));
    me.receive(NOW, IDS[1], &packet(1, foca::Message::Ping(1), vec![]), &all);
    me.receive(
        NOW,
        IDS[2],
        &packet(2, foca::Message::Gossip, vec![alive_update(1, BOOT + 2)]),
        &all,
    );
    assert_eq!(alive(&me), [member(2, BOOT)]);
    assert!(packets(&mut me).iter().all(|(to, _)| *to != IDS[1]));
    me.readmitted(IDS[1]);
    me.met(NOW, member(1, BOOT + 3));
    assert!(alive(&me).contains(&member(1, BOOT + 3)));
}

#[test]
fn packets_hold_at_most_what_a_datagram_does() {
    let mut me = new(0);
    let crowd = (0..200u64).map(|number| {
        let mut claim = Claim::from(member(2, BOOT));
        claim.node[..8].copy_from_slice(&number.to_le_bytes());
        claim
    });
    let nodes: Vec<NodeId> = crowd
        .filter_map(|claim| NodeId::from_bytes(&claim.node).ok())
        .collect();
    for &node in &nodes {
        me.met(
            NOW,
            Member {
                node,
                boot: Boot(1 << 47),
            },
        );
    }
    me.receive(NOW, IDS[1], &packet(1, foca::Message::Announce, vec![]), &all);
    me.tick(Duration::from_secs(20));
    let sent = packets(&mut me);
    assert!(sent.iter().any(|(_, packet)| packet.len() > 1_000));
    assert!(sent.iter().all(|(_, packet)| packet.len() <= MAX_PACKET_BYTES));
}

#[test]
fn a_packet_is_read_as_it_was_written() {
    let ping = packet(1, foca::Message::Ping(7), vec![alive_update(2, 5)]);
    let pinned = [
        IDS[1].to_vec(),
        vec![0xe8, 7, 0],
        IDS[0].to_vec(),
        vec![0xe8, 7, 0, 7, 0, 1],
        IDS[2].to_vec(),
        vec![5, 0, 0],
    ];
    assert_eq!(ping, pinned.concat());
    assert_eq!(Packet::read(&ping).unwrap().write(), ping);
    assert_eq!(Packet::read(&ping[..ping.len() - 1]), None);
    assert_eq!(Packet::read(&[ping, vec![0]].concat()), None);
}

#[test]
fn timeouts_follow_the_slowest_path_and_what_has_begun_as_well() {
    let mut me = new(0);
    me.met(NOW, member(1, BOOT));
    me.tick(PROBE_PERIOD);
    assert_eq!(me.next_timer(), Some(PROBE_PERIOD + PROBE_TIMEOUT));
    // 1.5 × 160 ms are three times the timeout.
    me.slowest_rtt(PROBE_PERIOD, Duration::from_millis(160));
    let timeout = me.timers.next_of_detection().unwrap();
    assert_eq!(timeout, PROBE_PERIOD + PROBE_TIMEOUT * 3);
}

#[test]
fn small_changes_of_the_path_change_nothing_and_zero_is_no_measurement() {
    let mut stretch = timers::Stretch::default();
    let millis = Duration::from_millis;
    assert_eq!(stretch.follow(Duration::ZERO), None);
    assert_eq!(stretch.follow(millis(20)), None);
    assert_eq!(stretch.follow(millis(60)), None);
    assert_eq!(stretch.follow(millis(160)), Some(3.0));
    assert_eq!(stretch.follow(millis(150)), None);
    assert_eq!(stretch.follow(millis(190)), None);
    assert_eq!(stretch.follow(millis(20)), Some(1.0 / 3.0));
    assert!(stretch.follow(Duration::MAX).unwrap() < 400.0);
}

proptest! {
    #[test]
    fn no_packet_panics(bytes in proptest::collection::vec(any::<u8>(), 0..1_200)) {
        let mut me = new(0);
        me.met(NOW, member(1, BOOT));
        me.receive(NOW, IDS[1], &bytes, &all);
        me.tick(Duration::from_secs(1));
    }

    #[test]
    fn no_changed_packet_panics(
        message in 0u8..11,
        changes in proptest::collection::vec((64usize..200, any::<u8>()), 0..6),
    ) {
        let mut me = new(0);
        me.met(NOW, member(1, BOOT));
        let mut bytes = packet(1, foca::Message::Gossip, vec![alive_update(2, 5), alive_update(0, BOOT)]);
        bytes[69] = message;
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        me.receive(NOW, IDS[1], &bytes, &all);
        for second in 1..5 {
            me.tick(Duration::from_secs(second));
        }
        prop_assert!(me.alive().count() <= 3);
    }
}
