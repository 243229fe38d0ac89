//! How argparse4j sets its texts: usage, help, and paragraphs whose lines are filled up with blanks to equal width.

use super::{Command, Grammar, HELP, Kind, Opt};

/// The width of a line.
pub const WIDTH: usize = 75;
/// Where explanations begin in the help.
const COLUMN: usize = 25;

/// How the tool or one of its sub-commands is called.
pub fn usage(grammar: &Grammar, command: Option<&Command>) -> String {
    let mut parts: Vec<String> = Vec::new();
    match command {
        None => {
            parts.push("[-h]".to_owned());
            let is_plain = |option: &&Opt| !grammar.exclusive.contains(&option.names[0]);
            parts.extend(grammar.options.iter().filter(is_plain).map(part));
            parts.extend(exclusive_parts(grammar));
            parts.extend([choices(grammar), "...".to_owned()]);
        }
        Some(command) => {
            // Of the tool's own options only what must be there is shown again.
            if grammar.is_one_required {
                parts.extend(exclusive_parts(grammar));
            }
            parts.extend([command.name.to_owned(), "[-h]".to_owned()]);
            parts.extend(command.options.iter().map(part));
        }
    }
    let begin = format!("usage: {}", grammar.program);
    let indent = begin.len();
    let mut lines = vec![begin];
    for part in parts {
        let last = lines.last_mut().expect("there is a first line");
        if last.len() + 1 + part.len() <= WIDTH || last.len() <= indent {
            *last += &format!(" {part}");
        } else {
            lines.push(format!("{:indent$} {part}", ""));
        }
    }
    lines.join("\n") + "\n"
}

/// `(--a A |` and `--b B)`, with square brackets if neither must be there.
fn exclusive_parts(grammar: &Grammar) -> Vec<String> {
    let of = |name: &str| grammar.options.iter().find(|option| option.names[0] == name).map(title);
    let [first, second] = grammar.exclusive.map(|name| of(name).unwrap_or_default());
    let [open, close] = if grammar.is_one_required { ["(", ")"] } else { ["[", "]"] };
    vec![format!("{open}{first} |"), format!("{second}{close}")]
}

fn choices(grammar: &Grammar) -> String {
    let names: Vec<&str> = grammar.commands.iter().map(|command| command.name).collect();
    format!("{{{}}}", names.join(","))
}

fn part(option: &Opt) -> String {
    if option.is_required { title(option) } else { format!("[{}]", title(option)) }
}

/// The option by its first name, with what it takes.
fn title(option: &Opt) -> String {
    with_value(option, option.names[0])
}

fn with_value(option: &Opt, name: &str) -> String {
    match option.kind {
        Kind::Switch => name.to_owned(),
        _ => {
            let value = option.names[0].trim_start_matches('-').replace('-', "_").to_ascii_uppercase();
            format!("{name} {value}")
        }
    }
}

/// The help of the tool or of one of its sub-commands.
pub fn help(grammar: &Grammar, command: Option<&Command>) -> String {
    let mut text = usage(grammar, command);
    if command.is_none() {
        text += &format!("\n{}\n", wrap(grammar.about, WIDTH).join("\n"));
        text += &format!("\npositional arguments:\n  {}\n", choices(grammar));
        for command in grammar.commands {
            text += &entry(&format!("    {}", command.name), command.about);
        }
    }
    let options = command.map_or(grammar.options, |command| command.options);
    text += "\noptional arguments:\n";
    for option in std::iter::once(&HELP).chain(options.iter().filter(|option| option.section.is_empty())) {
        text += &option_entry(option);
    }
    let mut section = "";
    for option in options.iter().filter(|option| !option.section.is_empty()) {
        if option.section != section {
            section = option.section;
            text += &format!("\n{section}:\n");
        }
        text += &option_entry(option);
    }
    text
}

fn option_entry(option: &Opt) -> String {
    let names: Vec<String> = option.names.iter().map(|name| with_value(option, name)).collect();
    entry(&format!("  {}", names.join(", ")), option.about)
}

/// A title and, beside it or below, what it means.
fn entry(title: &str, about: &str) -> String {
    let about = wrap(about, WIDTH - COLUMN).join(&format!("\n{:COLUMN$}", ""));
    if title.len() + 2 <= COLUMN {
        format!("{title:COLUMN$}{about}\n")
    } else {
        format!("{title}\n{:COLUMN$}{about}\n", "")
    }
}

/// Breaks a paragraph and spreads each line but the last over the whole width.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for piece in pieces(text) {
        let last = lines.last_mut().expect("there is a first line");
        // A blank at the end counts.
        if !last.is_empty() && last.chars().count() + piece.chars().count() > width {
            *last = spread(last.trim_end_matches(' '), width);
            lines.push(piece.to_owned());
        } else {
            last.push_str(piece);
        }
    }
    let last = lines.last_mut().expect("there is a first line");
    last.truncate(last.trim_end_matches(' ').len());
    lines
}

/// Pieces after which a line may end: words with their blanks, and parts of words up to a dash or the like.
fn pieces(text: &str) -> Vec<&str> {
    let is_break = |letter: char| matches!(letter, '-' | '.' | '!' | '?' | ')');
    let mut pieces = Vec::new();
    let mut begin = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let Some((_, next)) = letters.peek() else { break };
        let after_blank = letter == ' ' && *next != ' ';
        let within_word =
            is_break(letter) && (next.is_alphanumeric() || *next == '_') || letter.is_alphanumeric() && *next == '(';
        if after_blank || within_word {
            let end = at + letter.len_utf8();
            pieces.push(&text[begin..end]);
            begin = end;
        }
    }
    pieces.push(&text[begin..]);
    pieces
}

/// Widens the gaps between words; where they can't be equal, the wider ones are in the middle.
fn spread(line: &str, width: usize) -> String {
    let missing = width.saturating_sub(line.chars().count());
    let gaps = line.split(' ').filter(|word| !word.is_empty()).count().saturating_sub(1);
    if gaps == 0 {
        return line.to_owned();
    }
    let (each, wider) = (missing / gaps, missing % gaps);
    let first_wider = (gaps - wider).div_ceil(2);
    let mut spread = String::new();
    let mut gap = 0;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        spread.push(letter);
        if letter == ' ' && letters.peek() != Some(&' ') {
            let is_wider = (first_wider..first_wider + wider).contains(&gap);
            spread.extend(std::iter::repeat_n(' ', each + usize::from(is_wider)));
            gap += 1;
        }
    }
    spread
}
