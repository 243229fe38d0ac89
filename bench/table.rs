//! Results as a table in Markdown, with a column of ratios when there are two nodes.

use std::fmt::Write as _;

/// A line: what was measured, and what each node gave. Not a number is what wasn't measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// What, with its unit.
    pub name: String,
    /// By node.
    pub values: Vec<f64>,
}

/// The table of `rows` for these nodes.
pub fn markdown(nodes: &[&str], rows: &[Row]) -> String {
    let mut text = String::from("| |");
    for node in nodes {
        let _ = write!(text, " {node} |");
    }
    if nodes.len() == 2 {
        let _ = write!(text, " {} / {} |", nodes[0], nodes[1]);
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(if nodes.len() == 2 { 3 } else { nodes.len() }));
    text.push('\n');
    for row in rows {
        let _ = write!(text, "| {} |", row.name);
        for value in &row.values {
            let _ = write!(text, " {} |", number(*value));
        }
        if let [a, b] = row.values[..] {
            let ratio = a / b;
            let _ = if ratio.is_finite() { write!(text, " {ratio:.2} |") } else { write!(text, " – |") };
        }
        text.push('\n');
    }
    text
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
