//! A server of llama.cpp's RPC.

use std::ffi::CString;
use std::io::{copy, sink, stdin};
use std::process::exit;
use std::ptr;
use std::thread;

use anyhow::{bail, ensure};
use llama_cpp_sys_2 as sys;

use crate::llama;

/// Serves this machine's CPU, one host after the other, until standard input ends: whoever started it may
/// have no time to end it.
///
/// # Errors
/// Where it cannot listen.
pub fn run(address: &str, threads: usize) -> anyhow::Result<()> {
    llama::initialize();
    thread::spawn(|| {
        // An error is an end, too.
        let _ = copy(&mut stdin(), &mut sink());
        exit(0);
    });
    let endpoint = CString::new(address)?;
    // SAFETY: reads the registry of backends, which `initialize` filled.
    let mut cpu = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    ensure!(!cpu.is_null(), "llama.cpp has no CPU");
    // SAFETY: the endpoint and the list of one device live through the call, which returns only where the
    // server fails; without a folder nothing is cached.
    unsafe {
        llama::ggml_backend_rpc_start_server(endpoint.as_ptr(), ptr::null(), threads, 1, &raw mut cpu);
    }
    bail!("the server at {address} ended")
}
