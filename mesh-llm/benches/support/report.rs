//! The rows that a bench measured, as a table and as JSON.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::statistics::Summary;

/// What a value should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn reached(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(least) => value >= least,
            Goal::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtLeast(value) => write!(f, "≥ {value}"),
            Goal::AtMost(value) => write!(f, "≤ {value}"),
        }
    }
}

/// What values say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// In words.
    pub name: &'static str,
    /// Their unit.
    pub unit: &'static str,
}

impl Metric {
    /// A metric.
    pub const fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }
}

/// A row. Its JSON has these fields but the goal.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    case: String,
    variant: String,
    metric: &'static str,
    unit: &'static str,
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip)]
    goal: Option<Goal>,
}

/// What could not be measured. The table has it, the JSON has not.
#[derive(Debug, Clone, PartialEq)]
struct Failed {
    case: String,
    variant: String,
    reason: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} FAILED: {}", self.variant, self.reason)
    }
}

/// What a bench measured so far.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    failed: Vec<Failed>,
    remarks: Vec<String>,
}

/// The rows of one case.
#[derive(Debug)]
pub struct Case<'a> {
    report: &'a mut Report,
    name: String,
}

impl Report {
    /// Rows of this case follow.
    pub fn case(&mut self, name: impl Into<String>) -> Case<'_> {
        let name = name.into();
        eprintln!("measuring {name}");
        Case { report: self, name }
    }

    /// Adds a row of a variant that could not be measured.
    pub fn failed(&mut self, case: &str, variant: &str, reason: &str) {
        eprintln!("{case}: {variant} FAILED: {reason}");
        self.failed.push(Failed {
            case: case.to_owned(),
            variant: variant.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Something to know about the figures, printed below them.
    pub fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }

    /// Remarks how busy the machine is before anything is measured. Where others compute, not even ratios hold:
    /// what waits for the network gives its core away each time, and gets it back late (stock RPC at 20 ms was
    /// seen at 2.3 times solo alone, and at 4.9 times beside two builds).
    pub fn remark_on_load(&mut self) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        if let Some(minute) = load.split(' ').next() {
            self.remark(format!(
                "Load average of the minute before: {minute}. Where others compute, not even ratios hold."
            ));
        }
    }

    /// Prints the table. Goals are compared with medians.
    pub fn print(&self) {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header([
            "case", "variant", "metric", "unit", "min", "median", "max", "goal", "",
        ]);
        for row in &self.rows {
            let Summary { min, median, max } = row.summary;
            let reached = match row.goal.map(|goal| goal.reached(median)) {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "",
            };
            table.add_row([
                row.case.clone(),
                row.variant.clone(),
                row.metric.to_owned(),
                row.unit.to_owned(),
                figures(min),
                figures(median),
                figures(max),
                row.goal.map(|goal| goal.to_string()).unwrap_or_default(),
                reached.to_owned(),
            ]);
        }
        for failed in &self.failed {
            table.add_row([&failed.case, &failed.variant, "FAILED"]);
        }
        for column in table.column_iter_mut().skip(4).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
        let mut reasons: Vec<String> = self.failed.iter().map(Failed::to_string).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            println!("{reason}");
        }
        for remark in &self.remarks {
            println!("{remark}");
        }
    }

    /// Writes the rows as a JSON array.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_vec_pretty(&self.rows)?;
        json.push(b'\n');
        fs::write(path, json).with_context(|| format!("{} cannot be written", path.display()))
    }
}

impl Case<'_> {
    /// Adds a row of what was measured, a value for each repetition.
    pub fn row(&mut self, variant: impl Into<String>, metric: Metric, values: &[f64]) {
        self.add(variant.into(), metric, values, None);
    }

    /// Adds a row that has a goal.
    pub fn row_with_goal(&mut self, variant: impl Into<String>, metric: Metric, values: &[f64], goal: Goal) {
        self.add(variant.into(), metric, values, Some(goal));
    }

    fn add(&mut self, variant: String, metric: Metric, values: &[f64], goal: Option<Goal>) {
        let Metric { name, unit } = metric;
        let summary = Summary::of(values);
        eprintln!("  {variant}, {name}: {} {unit}", figures(summary.median));
        let case = self.name.clone();
        self.report.rows.push(Row {
            case,
            variant,
            metric: name,
            unit,
            summary,
            goal,
        });
    }
}

/// A number with as many figures as anyone compares.
fn figures(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        size if size < 0.1 => 4,
        size if size < 10.0 => 3,
        size if size < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}
