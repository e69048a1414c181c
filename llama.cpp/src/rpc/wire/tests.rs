//! Bytes of the protocol, pinned: what changes them needs a new [`super::PROTOCOL`].

use proptest::prelude::*;

use super::frame::{self, FrameFault, HEAD, Limits};
use super::*;
use crate::rpc::graph::{BufferId, Graph, Place, Tensor, View};

fn hex(message: &impl Serialize, payload: &[u8]) -> String {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, message, payload);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn queued(command: Command) -> ToWorker {
    ToWorker::Queue {
        queue: 1,
        step: Step(300),
        command,
    }
}

#[test]
fn the_bytes_are_what_they_were() {
    let place = Place {
        buffer: BufferId(2),
        offset: 4096,
    };
    let transfer = Transfer {
        to: NodeId(3),
        number: 7,
    };
    let tensor = Tensor {
        element: 1,
        shape: [4, 2, 1, 1],
        strides: [2, 8, 16, 16],
        op: 35,
        params: [0; 16],
        flags: 16,
        sources: vec![],
        view: Some(View { of: 0, offset: 8 }),
        place: Some(place),
    };
    let graph = Graph {
        tensors: vec![tensor],
        nodes: vec![0],
    };
    let pinned = [
        (hex(&ToWorker::Ping(5), b""), "02000000000000000505"),
        (hex(&queued(Command::Run(9)), b""), "06000000000000000201ac020a09"),
        (
            hex(
                &queued(Command::Write {
                    place,
                    bytes: 3,
                    coding: Coding::Changed(4),
                    keep: Some(4),
                }),
                b"abc",
            ),
            "0d000000030000000201ac02070280200302040104616263",
        ),
        (
            hex(
                &queued(Command::Push {
                    transfer,
                    place,
                    bytes: 3584,
                    through_host: false,
                }),
                b"",
            ),
            "0d000000000000000201ac020b0307028020801c00",
        ),
        (
            hex(&ToWorker::Deliver(transfer), b"\x01"),
            "030000000100000003030701",
        ),
        (hex(&ToHost::Data(ReadId(1)), b"\x02"), "0200000001000000060102"),
        (
            hex(
                &ToHost::Doing(Doing {
                    standing: Standing::Works,
                    done: 3,
                    progress: 300,
                }),
                b"",
            ),
            "05000000000000000a0203ac02",
        ),
        (
            hex(
                &ToHost::Pong {
                    number: 5,
                    now: 300,
                    ran: vec![Ran {
                        queue: 1,
                        step: Step(2),
                        begin: 3,
                        end: 4,
                        waited: 5,
                    }],
                },
                b"",
            ),
            "0a000000000000000705ac02010102030405",
        ),
        (
            hex(&graph, b""),
            "26000000000000000101040201010208101023000000000000000000000000000000001000010008010280200100",
        ),
    ];
    let (bytes, expected): (Vec<_>, Vec<_>) = pinned.into_iter().unzip();
    assert_eq!(bytes, expected);
}

#[test]
fn too_long_frames_are_refused_before_they_are_read() {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        frame::lengths(head, Limits::ADMITTED),
        Err(FrameFault::TooLong { .. })
    ));
    let mut head = [0; HEAD];
    head[4] = 1;
    assert!(frame::lengths(head, Limits::GREETING).is_err());
}

#[test]
fn bytes_behind_a_message_are_refused() {
    assert_eq!(frame::message::<ToHost>(&[6, 1, 0]), Err(FrameFault::Message));
    assert_eq!(frame::message::<ToHost>(&[6, 1]), Ok(ToHost::Data(ReadId(1))));
}

#[test]
fn proofs_tell_sides_secrets_nonces_and_purposes_apart() {
    use handshake::{Purpose, Side, proof};
    let (a, b) = ([1; 32], [2; 32]);
    let peer = |session, node| {
        Purpose::Peer(Peer {
            session: SessionId([session; 16]),
            node: NodeId(node),
        })
    };
    let own = proof(b"secret", Side::Dialler, &a, &b, Purpose::Host);
    assert_eq!(own, proof(b"secret", Side::Dialler, &a, &b, Purpose::Host));
    assert_ne!(own, proof(b"secret", Side::Listener, &a, &b, Purpose::Host));
    assert_ne!(own, proof(b"secreT", Side::Dialler, &a, &b, Purpose::Host));
    assert_ne!(own, proof(b"secret", Side::Dialler, &b, &a, Purpose::Host));
    let pushing = proof(b"secret", Side::Dialler, &a, &b, peer(1, 1));
    assert_ne!(own, pushing);
    assert_ne!(pushing, proof(b"secret", Side::Dialler, &a, &b, peer(2, 1)));
    assert_ne!(pushing, proof(b"secret", Side::Dialler, &a, &b, peer(1, 2)));
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = frame::message::<ToWorker>(&bytes);
        let _ = frame::message::<ToHost>(&bytes);
        let _ = frame::message::<handshake::Request>(&bytes);
    }

    #[test]
    fn what_is_written_is_read(step: u64, queue: u8, offset: u64, bytes: u64, payload: Vec<u8>) {
        let message = ToWorker::Queue {
            queue,
            step: Step(step),
            command: Command::Receive {
                transfer: Transfer { to: NodeId(1), number: step },
                place: Place { buffer: BufferId(queue.into()), offset },
                bytes,
            },
        };
        let mut frame = Vec::new();
        frame::append(&mut frame, &message, &payload);
        let head = frame[..HEAD].try_into().unwrap();
        let lengths = frame::lengths(head, Limits::ADMITTED).unwrap();
        prop_assert_eq!(lengths.payload, payload.len());
        let read: ToWorker = frame::message(&frame[HEAD..HEAD + lengths.message]).unwrap();
        prop_assert_eq!(read, message);
        prop_assert_eq!(&frame[HEAD + lengths.message..], &payload[..]);
    }
}
