//! From the death of a node to the next answer.

use std::thread;

use anyhow::{Context, ensure};

use super::RTT;
use super::machine::{Machine, Part, Start};
use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::client::Answered;
use crate::support::report::{Goal, Metric, Report};

const ABSENT: Metric = Metric::new("kill to absent everywhere", "ms");
const ANSWERED: Metric = Metric::new("kill to right answers of four questions", "ms");

/// Questions at once: more than one node takes, so that the dead one is asked, too.
const QUESTIONS: usize = 4;

/// Nobody waits longer for an answer before trying again.
const GOAL: Goal = Goal::AtMost(3e3);

/// Tokens of an answer.
const TOKENS: usize = 8;

/// Kills one of two nodes that serve a model, and measures when neither of the other two nodes knows it any more, and when
/// the third has whole answers of the model to questions that it has asked at once.
///
/// # Errors
/// Where something else happens.
pub fn measure(arguments: &Arguments, report: &mut Report, name: &str) -> anyhow::Result<()> {
    let lab = NetLab::start(3)?;
    lab.set_rtt(RTT);
    let (mut absent, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..arguments.amount(3, 10) {
        let (first, token) = Machine::found(&lab, 0, "both", None)?;
        let second = Machine::start(&lab, Start::new(1, Part::Serves("both"), Some(&token)))?;
        let third = Machine::start(&lab, Start::new(2, Part::Serves("third"), Some(&token)))?;
        for machine in [&first, &second, &third] {
            machine.until_others(2)?;
        }
        second.until_models(&["both"])?;
        third.until_models(&["both", "third"])?;
        let ask = || third.ask("both", TOKENS);
        let right = ask()?.text;
        // Both have been asked before.
        at_once(ask).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let killed = second.kill()?;
        let (gone, next) = thread::scope(|scope| {
            let looks = [&first, &third].map(|machine| scope.spawn(|| machine.until_others(1)));
            let next = at_once(ask);
            let gone = looks.map(|look| look.join().expect("a look panicked"));
            (gone, next)
        });
        let mut last = killed;
        for next in next {
            let next = next.context("a question after the death")?;
            ensure!(next.text == right, "another answer after the death");
            last = last.max(next.ended);
        }
        answered.push(last.since(killed).as_secs_f64() * 1e3);
        let mut last = killed;
        for gone in gone {
            last = last.max(gone?);
        }
        absent.push(last.since(killed).as_secs_f64() * 1e3);
    }
    let mut rows = report.case(name);
    rows.row_with_goal("3 nodes", ABSENT, &absent, GOAL);
    rows.row_with_goal("3 nodes", ANSWERED, &answered, GOAL);
    Ok(())
}

/// Asks so many questions at once.
fn at_once(ask: impl Fn() -> anyhow::Result<Answered> + Sync) -> [anyhow::Result<Answered>; QUESTIONS] {
    thread::scope(|scope| {
        [(); QUESTIONS]
            .map(|()| scope.spawn(&ask))
            .map(|question| question.join().expect("a question panicked"))
    })
}
