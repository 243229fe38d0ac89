//! Findings and changes for people and for programs.

use std::fmt::Write;

use crate::apply::{Change, Outcome};
use crate::finding::{Finding, Level};

/// A table of all findings, and below it what to do about those that are not as wanted.
pub fn table(findings: &[Finding]) -> String {
    let heading = ["", "WHAT", "IS", "WANTED"];
    let rows: Vec<[String; 4]> = findings
        .iter()
        .map(|finding| [finding.level.to_string(), finding.name.clone(), finding.value.clone(), finding.wanted.clone()])
        .collect();
    let mut text = in_columns(heading, &rows);
    let mut wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.level > Level::Ok).collect();
    wrong.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    for finding in wrong {
        let Finding { name, why, remedy, level, .. } = finding;
        // Writing to a string can't fail.
        let _ = write!(text, "\n{level} {name}: {why}.\n    {remedy}\n");
    }
    text
}

/// A table of changes. Empty if there are none.
pub fn changes(changes: &[Change]) -> String {
    let row = |change: &Change| {
        let outcome = match &change.outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Planned => "would be done".to_owned(),
            Outcome::Left => "left: changed by others since".to_owned(),
            Outcome::Refused(why) => format!("REFUSED: {why}"),
        };
        let from = if change.from.is_empty() { "-".to_owned() } else { change.from.clone() };
        [change.name.clone(), from, change.to.clone(), outcome]
    };
    if changes.is_empty() {
        return String::new();
    }
    in_columns(["WHAT", "FROM", "TO", ""], &changes.iter().map(row).collect::<Vec<_>>())
}

/// Lines with as much room between as the longest cells want.
fn in_columns(heading: [&str; 4], rows: &[[String; 4]]) -> String {
    let mut widths = heading.map(|word| word.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; 4]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(heading);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

/// The findings as a JSON array of objects with `name`, `value`, `wanted`, `why`, `level` and `remedy`.
pub fn json(findings: &[Finding]) -> String {
    serde_json::to_string_pretty(findings).expect("strings and names of levels become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let finding = |name: &str| Finding::new(name, "60", "1", "it is so");
        vec![
            finding("fine"),
            finding("could be better").unless(false, Level::Advice, "do this"),
            finding("bad").unless(false, Level::Warning, "do that"),
        ]
    }

    #[test]
    fn the_table_ends_with_what_to_do_worst_first() {
        let expected = "         WHAT             IS  WANTED\n\
                        ok       fine             60  1\n\
                        advice   could be better  60  1\n\
                        WARNING  bad              60  1\n\
                        \n\
                        WARNING bad: it is so.\n    do that\n\
                        \n\
                        advice could be better: it is so.\n    do this\n";
        assert_eq!(table(&findings()), expected);
    }

    #[test]
    fn a_change_says_what_came_of_it() {
        let change =
            |outcome| Change { name: "vm.swappiness".to_owned(), from: "60".to_owned(), to: "1".to_owned(), outcome };
        let all = [change(Outcome::Done), change(Outcome::Refused("Permission denied".to_owned()))];
        let expected = "WHAT           FROM  TO\n\
                        vm.swappiness  60    1   done\n\
                        vm.swappiness  60    1   REFUSED: Permission denied\n";
        assert_eq!(changes(&all), expected);
        assert_eq!(changes(&[]), "");
    }

    #[test]
    fn json_has_one_object_per_finding() {
        let value: serde_json::Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!(value[2]["level"], "warning");
        assert_eq!(value[2]["remedy"], "do that");
        assert_eq!(value.as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_finding_reads_as_a_sentence() {
        assert_eq!(findings()[2].to_string(), "bad is 60, wanted: 1 (it is so). do that");
        assert_eq!(findings()[0].to_string(), "fine is 60, wanted: 1 (it is so)");
    }
}
