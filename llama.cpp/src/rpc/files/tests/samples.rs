//! Where samples are taken, and what they find.

use super::{identity, model};
use crate::gguf::Model;
use crate::rpc::files::digest::{SAMPLE_BYTES, metadata_hash, samples, seed, table_hash};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;

const MOST: usize = 160;

proptest! {
    #[test]
    fn samples_are_few_and_within_tensors(
        lengths in prop::collection::vec(
            prop_oneof![0..10u64, 4090..4100u64, any::<u64>().prop_map(|length| length >> 1)], 0..300),
        key in any::<[u8; 32]>(),
    ) {
        let samples = samples(&key, &lengths);
        prop_assert!(samples.len() <= MOST);
        prop_assert_eq!(samples.is_empty(), lengths.iter().all(|&length| length == 0));
        for sample in samples {
            let length = lengths[sample.tensor];
            prop_assert_eq!(sample.bytes, length.min(SAMPLE_BYTES));
            prop_assert!(sample.bytes > 0 && sample.offset <= length - sample.bytes);
        }
    }

    #[test]
    fn a_stretch_of_a_48th_is_never_missed(
        key in any::<[u8; 32]>(),
        before in 0..1u64 << 40,
        length in 1 << 30..1u64 << 40,
    ) {
        let after = (length * 48).saturating_sub(before + length);
        let samples = samples(&key, &[before, length, after]);
        prop_assert!(samples.iter().any(|sample| sample.tensor == 1));
    }
}

#[test]
fn up_to_64_tensors_are_all_met_and_of_more_every_other_one_is() {
    let tensors = |lengths: &[u64]| -> BTreeSet<usize> {
        let samples = samples(&[3; 32], lengths);
        samples.iter().map(|sample| sample.tensor).collect()
    };
    // All but one are too small for samples by bytes.
    let mut lengths = vec![32; 64];
    lengths[20] = 1 << 40;
    assert_eq!(tensors(&lengths).len(), 64);
    lengths.resize(128, 32);
    let met = tensors(&lengths);
    assert!((0..64).all(|pair| met.contains(&(2 * pair)) || met.contains(&(2 * pair + 1))));
}

#[test]
fn positions_depend_on_the_seed() {
    let lengths = [1 << 40, 1 << 20];
    assert_eq!(samples(&[1; 32], &lengths), samples(&[1; 32], &lengths));
    assert_ne!(samples(&[1; 32], &lengths), samples(&[2; 32], &lengths));
}

#[test]
fn a_changed_weight_is_found_where_it_is_sampled_and_only_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    model(1).write(&path).unwrap();
    let opened = Model::open(&path).unwrap();
    let tensors: Vec<_> = opened.tensors().map(|location| location.tensor).collect();
    let lengths: Vec<u64> = tensors.iter().map(|tensor| tensor.bytes).collect();
    let key = seed(&metadata_hash(opened.metadata()), &table_hash(&tensors));
    let met: BTreeSet<u64> = samples(&key, &lengths)
        .into_iter()
        .flat_map(|sample| {
            let begin = tensors[sample.tensor].offset + sample.offset;
            begin..begin + sample.bytes
        })
        .collect();
    let plain = identity(&path);
    let bytes = fs::read(&path).unwrap();
    let missed: Vec<u64> = (opened.first().data_offset()..bytes.len() as u64)
        .filter(|at| !met.contains(at))
        .collect();
    assert!(!missed.is_empty(), "the model is too small for this test");
    for (positions, is_found) in [(met.into_iter().collect(), true), (missed, false)] {
        for &at in [
            positions.first(),
            positions.get(positions.len() / 2),
            positions.last(),
        ]
        .into_iter()
        .flatten()
        {
            let mut changed = bytes.clone();
            changed[at as usize] ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(identity(&path) != plain, is_found, "{at}");
        }
    }
}
