//! Names: from the schema's camel case to Rust's.

/// `ReplicaNodes` to `replica_nodes`; a run of capitals is one word, and so is `KRaft`.
pub fn snake(name: &str) -> String {
    let letters: Vec<char> = name.replace("KRaft", "Kraft").chars().collect();
    let mut text = String::new();
    for (i, &letter) in letters.iter().enumerate() {
        let starts_word = i > 0
            && letter.is_uppercase()
            && (!letters[i - 1].is_uppercase() || letters.get(i + 1).is_some_and(|next| next.is_lowercase()));
        if starts_word {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// A field's name: snake case, with an underscore after a word that Rust keeps for itself.
pub fn field(name: &str) -> String {
    let mut text = snake(name);
    if matches!(text.as_str(), "type" | "match" | "ref" | "in" | "loop" | "move" | "use" | "self" | "where" | "as") {
        text.push('_');
    }
    text
}
