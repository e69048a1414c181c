//! Weights in layouts of the CPU's own, and what their change means for graphs that a worker keeps.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use llama_cpp_sys_2 as sys;

use super::lab;
use crate::gguf::{TensorType, Writer};
use crate::rpc::files::WeightFile;
use crate::rpc::graph::{BufferId, Graph, PARAMETERS, Place, Tensor};
use crate::rpc::link::{Outlet, Receive, lock};
use crate::rpc::wire::{
    Coding, Command, Load, NodeId, Open, OpenQueue, ReadId, SessionId, Step, ToHost, ToWorker,
};
use crate::rpc::worker::{ModelSource, Session};

/// Elements of the weight, in each of two dimensions.
const WIDTH: u64 = 64;
const WEIGHTS: BufferId = BufferId(0);
const MEMORY: BufferId = BufferId(1);

/// What a worker says.
#[derive(Debug, Default)]
struct Ear {
    data: Mutex<Vec<Bytes>>,
    failed: Mutex<Option<String>>,
}

impl Receive<ToHost> for Ear {
    fn receive(&self, message: ToHost, payload: Bytes) {
        match message {
            ToHost::Data(_) => lock(&self.data).push(payload),
            ToHost::Failed(cause) => *lock(&self.failed) = Some(cause),
            _ => {}
        }
    }

    fn closed(&self) {}
}

/// A model of one weight that CPUs have layouts for.
fn model() -> (tempfile::TempDir, WeightFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama");
    writer.tensor("w", [WIDTH, WIDTH], TensorType::Q4_0, |out| {
        // A scale of 1 in half precision, and 32 numbers of 4 bits.
        let block = |number: u64| {
            let mut block = [(number % 251) as u8; 18];
            block[..2].copy_from_slice(&[0, 0x3c]);
            block
        };
        (0..WIDTH * WIDTH / 32).try_for_each(|number| out.write_all(&block(number)))
    });
    writer.write(&path).unwrap();
    (folder, WeightFile::open(path).unwrap())
}

fn tensor(element: u32, shape: [u64; 2], block: (u64, u64), place: Place) -> Tensor {
    let (elements, bytes) = block;
    let row = shape[0] / elements * bytes;
    Tensor {
        element,
        shape: [shape[0], shape[1], 1, 1],
        strides: [bytes, row, row * shape[1], row * shape[1]],
        op: sys::GGML_OP_NONE,
        params: [0; PARAMETERS],
        flags: 0,
        sources: Vec::new(),
        view: None,
        place: Some(place),
    }
}

/// A graph of one operation on the weight and `input`, whose result lies at the start of [`MEMORY`].
fn graph(op: u32, input: Tensor) -> Graph {
    let weight = Place {
        buffer: WEIGHTS,
        offset: 0,
    };
    let result = Place {
        buffer: MEMORY,
        offset: 0,
    };
    let result = Tensor {
        op,
        flags: sys::GGML_TENSOR_FLAG_COMPUTE,
        sources: vec![Some(0), Some(1)],
        ..tensor(sys::GGML_TYPE_F32, [WIDTH, 1], (1, 4), result)
    };
    Graph {
        tensors: vec![
            tensor(sys::GGML_TYPE_Q4_0, [WIDTH, WIDTH], (32, 18), weight),
            input,
            result,
        ],
        nodes: vec![2],
    }
}

#[test]
fn a_weight_that_is_loaded_again_takes_no_graph_away_from_the_host() {
    let (_folder, file) = model();
    let ear = Arc::new(Ear::default());
    let open = Open {
        session: SessionId([3; 16]),
        node: NodeId(1),
        queues: vec![OpenQueue {
            device: 0,
            reserve: 1 << 20,
        }],
        model: None,
    };
    let device = lab::cpu(256 << 20);
    let host = Outlet::Local(ear.clone() as Arc<dyn Receive<ToHost>>);
    let source = ModelSource::new(Some(file));
    let session = Session::start(&open, &[device], &source, host, None).unwrap();
    let send = |command, payload: &[u8]| {
        let (queue, step) = (0, Step(0));
        let message = ToWorker::Queue { queue, step, command };
        session.receive(message, payload.to_vec().into());
    };
    let input = Place {
        buffer: MEMORY,
        offset: 1024,
    };
    let result = Place { offset: 0, ..input };
    let bytes = WIDTH * WIDTH / 32 * 18;
    send(
        Command::AllocateWeights {
            buffer: WEIGHTS,
            bytes,
        },
        &[],
    );
    let weights = vec![Load {
        name: "w".into(),
        offset: 0,
        op: sys::GGML_OP_MUL_MAT,
    }];
    send(
        Command::Load {
            buffer: WEIGHTS,
            weights,
        },
        &[],
    );
    let (buffer, bytes) = (MEMORY, 4096);
    send(Command::Allocate { buffer, bytes }, &[]);
    let write = |place, payload: &[u8]| {
        let write = Command::Write {
            place,
            bytes: payload.len() as u64,
            coding: Coding::Plain,
            keep: None,
        };
        send(write, payload);
    };
    let read = |number| {
        let bytes = WIDTH * 4;
        let (read, place) = (ReadId(number), result);
        send(Command::Read { read, place, bytes }, &[]);
    };
    let numbers: Vec<u8> = (0..WIDTH as u8)
        .flat_map(|n| f32::from(n).to_ne_bytes())
        .collect();
    let product = tensor(sys::GGML_TYPE_F32, [WIDTH, 1], (1, 4), input);
    let define = |graph, content| send(Command::Define { graph, content }, &[]);
    define(0, graph(sys::GGML_OP_MUL_MAT, product));
    write(input, &numbers);
    send(Command::Run(0), &[]);
    read(0);
    // Rows can be looked up in ggml's own layout only.
    let row = tensor(sys::GGML_TYPE_I32, [1, 1], (1, 4), input.ahead(1024));
    define(1, graph(sys::GGML_OP_GET_ROWS, row));
    write(input.ahead(1024), &5_i32.to_ne_bytes());
    send(Command::Run(1), &[]);
    read(1);
    send(Command::Run(0), &[]);
    read(2);
    let done = || (lock(&ear.data).len() == 3 || lock(&ear.failed).is_some()).then_some(());
    lab::eventually("all is computed", done);
    assert_eq!(*lock(&ear.failed), None);
    let [before, rows, after] = &lock(&ear.data)[..] else {
        panic!("three answers were there")
    };
    let number =
        |bytes: &Bytes, index: usize| f32::from_ne_bytes(bytes[index * 4..][..4].try_into().unwrap());
    // Row 5 begins with block 10, each of whose bytes holds two numbers: 10 and 0, less 8.
    assert_eq!((number(rows, 0), number(rows, 16)), (2.0, -8.0));
    for index in 0..WIDTH as usize {
        let (one, other) = (number(before, index), number(after, index));
        assert!((one - other).abs() <= one.abs() * 1e-3, "{one} is not {other}");
    }
    session.end();
}
