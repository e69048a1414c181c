//! What this machine computes with.

use serde_json::Value;

use crate::harness::Start;

#[test]
fn devices_tells_what_the_processor_has_and_reads() {
    let told = Start::bare().word("devices").flag("--log-format", "json").ended();
    assert_eq!(told.code, Some(0), "{:?}", told.err);
    let devices = told
        .out
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let devices: Vec<Value> = devices.collect();
    let processor = devices.iter().find(|device| device["name"] == "CPU");
    let processor = processor.unwrap_or_else(|| panic!("{devices:?}"));
    assert_eq!(processor["memory"], "host");
    for number in ["total", "free", "bandwidth"] {
        assert!(processor[number].as_u64().unwrap() > 0, "{processor}");
    }
    let table = Start::bare().word("devices").ended().out.join("\n");
    assert!(table.contains("READS") && table.contains("CPU"), "{table}");
}

#[test]
fn a_device_that_is_not_there_is_named_with_those_that_are() {
    let told = Start::bare()
        .word("rpc-server")
        .word("--list-devices")
        .flag("--device", "CUDA9")
        .ended();
    assert_eq!(told.code, Some(64));
    let line = told.err.join("\n");
    assert!(
        line.contains("there is no device CUDA9; this build finds CPU"),
        "{line}"
    );
}
