//! `--topic` and `--include` as Kafka's tools read them: a list of regular expressions that must fit the whole name.

use regex::Regex;

/// Selects topics by name.
#[derive(Debug, Clone)]
pub struct TopicFilter {
    regex: Regex,
}

impl TopicFilter {
    /// Quotes and blanks around it are dropped and `,` means "or", as in Kafka's `IncludeList`.
    pub fn new(text: &str) -> Result<TopicFilter, String> {
        let quotes = |c: char| c == '"' || c == '\'';
        let expression: String = text.trim().replace(',', "|").split_whitespace().collect();
        let expression = expression.trim_matches(quotes);
        match Regex::new(&format!("^(?:{expression})$")) {
            Ok(regex) => Ok(TopicFilter { regex }),
            Err(_) => Err(format!("{text} is an invalid regex.")),
        }
    }

    /// Whether the topic is selected.
    pub fn is_match(&self, topic: &str) -> bool {
        self.regex.is_match(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::TopicFilter;

    #[test]
    fn whole_names_fit_and_commas_mean_or() {
        let filter = TopicFilter::new("orders, 'pay.*'".trim()).unwrap();
        assert!(filter.is_match("orders"));
        assert!(!filter.is_match("orders2"));
        assert!(TopicFilter::new("\"a|b\"").unwrap().is_match("b"));
        assert_eq!(TopicFilter::new("(").unwrap_err(), "( is an invalid regex.");
    }
}
