//! `GET /metrics`, for Prometheus.

use std::fmt;

use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::super::engine::EngineState;
use super::super::guesses::{BySource, Guesses};
use super::App;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(
    State(app): State<App>,
) -> Result<([(HeaderName, &'static str); 1], String), StatusCode> {
    let labels = [("model".into(), app.engine.name().to_owned().into())];
    let mut registry = Registry::with_prefix_and_labels("mesh_llm", labels.into_iter());
    registry.register_collector(Box::new(Snapshot {
        state: app.engine.state(),
        slots: app.engine.slots(),
        context: app.engine.context(),
    }));
    let mut text = String::new();
    text::encode(&mut text, &registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

/// The engine's counters at one moment, so that they fit together.
#[derive(Debug)]
struct Snapshot {
    state: EngineState,
    slots: u32,
    context: u32,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = &self.state;
        let seconds = Some(&Unit::Seconds);
        for (name, help, value) in [
            ("slots", "Requests that are served at once", u64::from(self.slots)),
            ("slots_busy", "Slots with a request", state.busy_slots.into()),
            (
                "requests_waiting",
                "Requests that wait for a slot",
                state.waiting.into(),
            ),
            (
                "context_tokens",
                "Tokens that all slots share",
                self.context.into(),
            ),
            (
                "cached_tokens",
                "Tokens that the KV cache has",
                state.tokens_cached,
            ),
            (
                "draft_windows_in_flight",
                "Windows of guessed tokens that are on their way",
                state.windows_in_flight.into(),
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("requests", "Requests so far", state.requests_total),
            ("requests_failed", "Requests that failed", state.failures_total),
            (
                "requests_cancelled",
                "Requests whose client went away",
                state.cancelled_total,
            ),
            (
                "prompt_tokens",
                "Tokens of all prompts",
                state.prompt_tokens_total,
            ),
            (
                "prompt_tokens_cached",
                "Tokens of prompts that were found in the KV cache",
                state.cached_tokens_total,
            ),
            (
                "completion_tokens",
                "Tokens of all answers",
                state.completion_tokens_total,
            ),
            ("steps", "Steps of the engine", state.steps_total),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in [
            (
                "prefill",
                "Time in steps with prefill",
                state.prefill_seconds_total,
            ),
            (
                "decode",
                "Time in steps with answers only",
                state.decode_seconds_total,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, seconds, counter.metric_type())?)?;
        }
        guesses(&mut encoder, &state.guesses_total)
    }
}

/// Guessed tokens, by source.
fn guesses(encoder: &mut DescriptorEncoder<'_>, guesses: &BySource) -> Result<(), fmt::Error> {
    type Count = fn(&Guesses) -> u64;
    for (name, help, count) in [
        (
            "draft_tokens",
            "Tokens that were guessed and sent to be verified",
            (|guesses| guesses.drafted) as Count,
        ),
        (
            "draft_tokens_accepted",
            "Guessed tokens that were right",
            |guesses| guesses.accepted,
        ),
        (
            "draft_tokens_wasted",
            "Guessed tokens that were computed in vain",
            |guesses| guesses.wasted,
        ),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (source, guesses) in guesses.iter() {
            let labels = [("source", source)];
            ConstCounter::new(count(guesses)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array::from_fn;

    #[test]
    fn counters_and_gauges_are_exposed_with_their_units() {
        let mut registry = Registry::with_prefix("mesh_llm");
        let state = EngineState {
            busy_slots: 3,
            requests_total: 7,
            prefill_seconds_total: 1.5,
            guesses_total: BySource(from_fn(|index| Guesses {
                drafted: 10 + index as u64,
                accepted: 4,
                wasted: 6 + index as u64,
            })),
            windows_in_flight: 2,
            ..EngineState::default()
        };
        registry.register_collector(Box::new(Snapshot {
            state,
            slots: 8,
            context: 4096,
        }));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        for line in [
            "mesh_llm_slots 8",
            "mesh_llm_slots_busy 3",
            "mesh_llm_requests_total 7",
            "mesh_llm_prefill_seconds_total 1.5",
            "mesh_llm_draft_windows_in_flight 2",
            r#"mesh_llm_draft_tokens_total{source="ngram"} 10"#,
            r#"mesh_llm_draft_tokens_accepted_total{source="prediction"} 4"#,
            r#"mesh_llm_draft_tokens_wasted_total{source="model"} 8"#,
        ] {
            assert!(out.lines().any(|other| other == line), "no {line} in:\n{out}");
        }
        assert!(out.ends_with("# EOF\n"));
    }
}
