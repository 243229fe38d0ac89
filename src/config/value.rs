//! One key's text to its value, by Kafka's rules and in Kafka's words when it is refused.

use std::fmt;
use std::time::Duration;

use crate::definition::{ConfigDef, ConfigType, Validator};
use crate::listener;

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigValue {
    /// A boolean.
    Boolean(bool),
    /// An int, short or long.
    Integer(i64),
    /// A double.
    Double(f64),
    /// A string, class or password.
    String(String),
    /// A list, trimmed element by element.
    List(Vec<String>),
}

impl fmt::Display for ConfigValue {
    /// The text that Kafka shows for the value: lists joined by commas, doubles as Java writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigValue::Boolean(value) => value.fmt(f),
            ConfigValue::Integer(value) => value.fmt(f),
            ConfigValue::Double(value) => f.write_str(&java_double(*value)),
            ConfigValue::String(value) => f.write_str(value),
            ConfigValue::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// A value that Kafka refuses. Displayed, it is Kafka's sentence, which names key, value and rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

impl InvalidValue {
    /// Kafka's usual form: `Invalid value VALUE for configuration KEY: RULE`.
    pub(crate) fn new(key: &str, value: impl fmt::Display, rule: impl fmt::Display) -> InvalidValue {
        InvalidValue(format!("Invalid value {value} for configuration {key}: {rule}"))
    }
}

/// Parses `text` as a value of `definition` and checks its rule.
pub fn parse_value(definition: &ConfigDef, text: &str) -> Result<ConfigValue, InvalidValue> {
    let value = parse_type(definition, text)?;
    check(definition, &value)?;
    Ok(value)
}

fn parse_type(definition: &ConfigDef, text: &str) -> Result<ConfigValue, InvalidValue> {
    let written = text;
    let text = trim(text);
    let not_a_number = || {
        InvalidValue::new(
            definition.name,
            written,
            format_args!("Not a number of type {}", definition.config_type.name()),
        )
    };
    let integer = |min: i64, max: i64| {
        let number = text.parse::<i64>().ok().filter(|number| (min..=max).contains(number));
        number.map(ConfigValue::Integer).ok_or_else(not_a_number)
    };
    match definition.config_type {
        ConfigType::Boolean if text.eq_ignore_ascii_case("true") => Ok(ConfigValue::Boolean(true)),
        ConfigType::Boolean if text.eq_ignore_ascii_case("false") => Ok(ConfigValue::Boolean(false)),
        ConfigType::Boolean => {
            Err(InvalidValue::new(definition.name, written, "Expected value to be either true or false"))
        }
        ConfigType::Int => integer(i64::from(i32::MIN), i64::from(i32::MAX)),
        ConfigType::Short => integer(i64::from(i16::MIN), i64::from(i16::MAX)),
        ConfigType::Long => integer(i64::MIN, i64::MAX),
        ConfigType::Double => parse_double(text).map(ConfigValue::Double).ok_or_else(not_a_number),
        ConfigType::String | ConfigType::Class | ConfigType::Password => Ok(ConfigValue::String(text.to_owned())),
        ConfigType::List => Ok(ConfigValue::List(split_list(text))),
    }
}

/// Java's `String.trim`: everything up to and including the space, at both ends.
fn trim(text: &str) -> &str {
    text.trim_matches(|character| character <= ' ')
}

/// A list's elements: split at commas with the blanks around them. Text without a character is no element.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    let text = trim(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|element| element.trim().to_owned()).collect()
}

/// Java's `Double.parseDouble`, without hexadecimal: an `f` or `d` may follow the digits.
fn parse_double(text: &str) -> Option<f64> {
    match text.trim_start_matches(['+', '-']) {
        "NaN" => return Some(f64::NAN),
        "Infinity" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        "Infinity" => return Some(f64::INFINITY),
        _ => {}
    }
    let digits = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    // Rust also reads "inf", "infinity" and "nan", which Java doesn't.
    let numeric = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    digits.bytes().all(numeric).then(|| digits.parse().ok()).flatten()
}

/// A double as Java's `Double.toString` writes it: `0.5`, `2.147483647E9`.
pub(crate) fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:E}");
    match scientific.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => scientific,
    }
}

fn check(definition: &ConfigDef, value: &ConfigValue) -> Result<(), InvalidValue> {
    let name = definition.name;
    let refuse = |rule: String| Err(InvalidValue::new(name, value, rule));
    match (&definition.validator, value) {
        (Validator::Range { min, max, min_text, max_text }, ConfigValue::Integer(_) | ConfigValue::Double(_)) => {
            let number = match value {
                ConfigValue::Double(number) => *number,
                ConfigValue::Integer(number) => *number as f64,
                _ => unreachable!("the pattern admits numbers only"),
            };
            if number < *min {
                return refuse(format!("Value must be at least {min_text}"));
            }
            if let (Some(max), Some(max_text)) = (max, max_text)
                && number > *max
            {
                return refuse(format!("Value must be no more than {max_text}"));
            }
            Ok(())
        }
        (Validator::GzipLevel, ConfigValue::Integer(level)) if !(*level == -1 || (1..=9).contains(level)) => {
            refuse("Value must be between 1 and 9 or equal to -1".to_owned())
        }
        (Validator::OneOf(allowed), ConfigValue::String(text)) if !allowed.contains(&text.as_str()) => {
            refuse(format!("String must be one of: {}", allowed.join(", ")))
        }
        (Validator::OneOfIgnoringCase(allowed), ConfigValue::String(text))
            if !allowed.iter().any(|one| one.eq_ignore_ascii_case(text)) =>
        {
            refuse(format!("String must be one of (case insensitive): {}", allowed.join(", ")))
        }
        (Validator::ValidList { of, empty_allowed }, ConfigValue::List(list)) => {
            check_list(name, of, *empty_allowed, list)
        }
        (Validator::NonEmptyString, ConfigValue::String(text)) if text.is_empty() => {
            refuse("String must be non-empty".to_owned())
        }
        (Validator::QuorumVoters, ConfigValue::List(list)) => listener::parse_voters(list).map(|_| ()),
        (Validator::BootstrapServers, ConfigValue::List(list)) => listener::parse_bootstrap_servers(list).map(|_| ()),
        (Validator::ThrottledReplicas, ConfigValue::List(list)) => check_throttled(name, list),
        (Validator::ShareAutoOffsetReset, ConfigValue::String(text)) if !is_share_offset_reset(text) => {
            refuse(format!(
                "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', 'latest' or of \
                 the format 'by_duration:<PnDTnHnMn.nS>'."
            ))
        }
        _ => Ok(()),
    }
}

fn check_list(name: &str, of: &[&str], empty_allowed: bool, list: &[String]) -> Result<(), InvalidValue> {
    if list.is_empty() && !empty_allowed {
        let valid = if of.is_empty() { "any non-empty value".to_owned() } else { format!("[{}]", of.join(", ")) };
        let text = format!("Configuration '{name}' must not be empty. Valid values include: {valid}");
        return Err(InvalidValue(text));
    }
    if list.iter().any(String::is_empty) {
        return Err(InvalidValue(format!("Configuration '{name}' values must not be empty.")));
    }
    match list.iter().find(|element| !of.is_empty() && !of.contains(&element.as_str())) {
        None => Ok(()),
        Some(element) => {
            Err(InvalidValue::new(name, element, format_args!("String must be one of: {}", of.join(", "))))
        }
    }
}

fn check_throttled(name: &str, list: &[String]) -> Result<(), InvalidValue> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_replica = |text: &String| {
        text.is_empty() || text.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
    };
    if list.iter().all(is_replica) || (list.len() == 1 && list.iter().any(|element| element == "*")) {
        return Ok(());
    }
    let rule = format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    Err(InvalidValue::new(name, format_args!("[{}]", list.join(", ")), rule))
}

fn is_share_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        None => text == "earliest" || text == "latest",
        Some(duration) => parse_duration(duration).is_some(),
    }
}

/// `PnDTnHnMn.nS` with at least one part and no part negative (ISO 8601).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let text = text.strip_prefix(['P', 'p'])?;
    let (days, time) = match text.split_once(['T', 't']) {
        None => (text, None),
        Some((days, time)) => (days, Some(time)),
    };
    // Nine digits, and no sum of them overflows.
    let number = |digits: &str| {
        let fits = digits.len() <= 9 && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if fits { digits.parse::<u64>().ok() } else { None }
    };
    let mut seconds = match days {
        "" => 0,
        days => number(days.strip_suffix(['D', 'd'])?)? * 86_400,
    };
    let Some(mut rest) = time else { return (!days.is_empty()).then_some(Duration::from_secs(seconds)) };
    if rest.is_empty() {
        return None;
    }
    for (unit, unit_seconds) in [(['H', 'h'], 3600), (['M', 'm'], 60)] {
        if let Some((digits, after)) = rest.split_once(unit) {
            seconds += number(digits)? * unit_seconds;
            rest = after;
        }
    }
    if rest.is_empty() {
        return Some(Duration::from_secs(seconds));
    }
    let rest = rest.strip_suffix(['S', 's'])?;
    let (whole, part) = rest.split_once(['.', ',']).unwrap_or((rest, ""));
    let nanoseconds = if part.is_empty() { 0 } else { number(part)? * 10u64.pow(9 - u32::try_from(part.len()).ok()?) };
    Some(Duration::from_secs(seconds + number(whole)?) + Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn parse(key: &str, text: &str) -> Result<ConfigValue, String> {
        parse_value(registry::broker().get(key).expect("a key"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn doubles_are_read_and_written_as_by_java() {
        for (text, shown) in [
            ("0.5", "0.5"),
            (" 1e3 ", "1000.0"),
            ("0.5f", "0.5"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("2147483647", "2.147483647E9"),
            ("10000000", "1.0E7"),
            ("0.0001", "1.0E-4"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
        ] {
            let value = parse("log.cleaner.io.max.bytes.per.second", text).map(|value| value.to_string());
            assert_eq!(value, Ok(shown.to_owned()), "{text}");
        }
        for text in ["inf", "nan", "", "f", "0x1p3", "1_000"] {
            assert!(parse("log.cleaner.io.max.bytes.per.second", text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_trimmed_element_by_element() {
        let list = |elements: &[&str]| Ok(ConfigValue::List(elements.iter().map(|one| (*one).to_owned()).collect()));
        assert_eq!(parse("log.dirs", " /a b , /c "), list(&["/a b", "/c"]));
        assert_eq!(parse("log.cleanup.policy", "  "), list(&[]));
    }

    #[test]
    fn durations_are_iso_8601() {
        for (text, ms) in [
            ("PT1H", 3_600_000),
            ("P2D", 172_800_000),
            ("P1DT2H3M4.5S", 93_784_500),
            ("pt10m", 600_000),
            ("PT0S", 0),
            ("PT0.001S", 1),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "P", "PT", "P1H", "1H", "-PT1H", "PT-1H", "PT1S2H", "PT1.5H", "P1DT"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
