//! Texts, numbers and words of JSON.

use super::json::Json;
use super::json_reader::{JsonError, Reader, VALUES};

impl Reader<'_> {
    /// A text; `unclosed` is what is missed at an early end.
    pub(super) fn string(&mut self, unclosed: &str) -> Result<String, JsonError> {
        let mut text = String::new();
        self.next();
        loop {
            let place = self.place;
            match self.peek() {
                Some('"') => {
                    self.next();
                    return Ok(text);
                }
                Some('\\') => {
                    self.next();
                    text.push(self.escaped()?);
                }
                Some(letter) if letter < ' ' => {
                    let code = u32::from(letter);
                    self.next();
                    let message = format!(
                        "Illegal unquoted character ((CTRL-CHAR, code {code})): has to be escaped using backslash to be \
                         included in string value"
                    );
                    return Err(self.wrong_at(place, message));
                }
                Some(letter) => {
                    self.next();
                    text.push(letter);
                }
                None if unclosed.starts_with("in ") => return self.end(&format!(" {unclosed}")),
                None => return self.end(&format!(": {unclosed}")),
            }
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, JsonError> {
        let Some(letter) = self.peek() else { return self.end(" in character escape sequence") };
        let plain = match letter {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '"' | '\\' | '/' => letter,
            'u' => return self.unicode(),
            other => {
                return Err(self.wrong(format!("Unrecognized character escape '{other}' (code {})", u32::from(other))));
            }
        };
        self.next();
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.unit()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let mut ahead = self.rest.clone();
        if (ahead.next(), ahead.next()) != (Some('\\'), Some('u')) {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        self.next();
        let pair = [high, self.unit()?].map(|unit| u16::try_from(unit).unwrap_or_default());
        Ok(char::decode_utf16(pair).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// `u` and four digits.
    fn unit(&mut self) -> Result<u32, JsonError> {
        self.next();
        let mut unit = 0;
        for _ in 0..4 {
            match self.peek() {
                Some(letter) => match letter.to_digit(16) {
                    Some(digit) => unit = unit * 16 + digit,
                    None => {
                        return self.unexpected(letter, ": expected a hex-digit for character escape sequence");
                    }
                },
                None => return self.end(" in character escape sequence"),
            }
            self.next();
        }
        Ok(unit)
    }

    fn digits(&mut self, text: &mut String) {
        while let Some(digit @ '0'..='9') = self.peek() {
            text.push(digit);
            self.next();
        }
    }

    fn has_digit(&mut self) -> bool {
        self.peek().is_some_and(|next| next.is_ascii_digit())
    }

    /// A number as it is written.
    pub(super) fn number(&mut self) -> Result<String, JsonError> {
        let mut text = String::new();
        if self.peek() == Some('-') {
            text.push('-');
            self.next();
            match self.peek() {
                Some('0'..='9') => {}
                Some('.') => return self.unexpected('.', &format!(": expected a valid value {VALUES}")),
                Some(letter) => {
                    let what = " in numeric value: expected digit (0-9) to follow minus sign, for valid numeric value";
                    return self.unexpected(letter, what);
                }
                None => return self.end("No digit following sign"),
            }
        }
        if self.peek() == Some('0') {
            text.push('0');
            self.next();
            if self.has_digit() {
                return Err(self.wrong("Invalid numeric value: Leading zeroes not allowed"));
            }
        }
        self.digits(&mut text);
        let point = self.place;
        if self.peek() == Some('.') {
            text.push('.');
            self.next();
            if !self.has_digit() {
                let found = self.peek().unwrap_or('.');
                self.place = point;
                return self.unexpected(found, " in numeric value: Decimal point not followed by a digit");
            }
            self.digits(&mut text);
        }
        self.exponent(&mut text)?;
        Ok(text)
    }

    fn exponent(&mut self, text: &mut String) -> Result<(), JsonError> {
        let indicator = self.place;
        let Some(letter @ ('e' | 'E')) = self.peek() else { return Ok(()) };
        text.push(letter);
        self.next();
        if let Some(sign @ ('+' | '-')) = self.peek() {
            text.push(sign);
            self.next();
        }
        match self.peek() {
            Some('0'..='9') => {
                self.digits(text);
                Ok(())
            }
            Some(found) => {
                self.place = indicator;
                self.unexpected(found, " in numeric value: Exponent indicator not followed by a digit")
            }
            None => self.end("expected a digit for number exponent"),
        }
    }

    /// A number can't begin so.
    pub(super) fn plus(&mut self) -> Result<Json, JsonError> {
        self.next();
        if self.peek().is_none() {
            return self.end(" in a Number value");
        }
        Err(self.wrong(
            "Unexpected character ('+' (code 43)) in numeric value: JSON spec does not allow numbers to have plus signs: \
             enable `JsonReadFeature.ALLOW_LEADING_PLUS_SIGN_FOR_NUMBERS` to allow",
        ))
    }

    /// A word, of which there are three.
    pub(super) fn token(&mut self) -> Result<Json, JsonError> {
        let place = self.place;
        let mut word = String::new();
        while let Some(letter) = self.peek().filter(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '$')) {
            word.push(letter);
            self.next();
        }
        match word.as_str() {
            "null" => Ok(Json::Null),
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            "NaN" | "Infinity" => Err(self.wrong(format!(
                "Non-standard token '{word}': enable `JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS` to allow"
            ))),
            word => {
                let message = format!("Unrecognized token '{word}': was expecting {VALUES}");
                Err(self.wrong_at(place, message))
            }
        }
    }
}
