//! Taking secrets out of what leaves the site for somebody else to read.
//!
//! What is not known to be harmless goes: fields by their names, and in text whatever looks like a key, wherever it
//! stands. That a hash or an id goes with it is no harm; a key that stays is.

use serde_json::Value;

/// What stands in the place of a secret.
pub const REMOVED: &str = "(removed)";

/// Parts of field names that say that a value is secret, in lower case and without `-` and `_`.
const SECRET_NAMES: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "privatekey",
    "psk",
    "presharedkey",
    "apikey",
    "authorization",
    "cookie",
    "community",
    "pin",
];

/// Of these the whole name counts: `key` is secret, `keyspace` is not.
const SECRET_WHOLE: [&str; 5] = ["key", "keys", "pass", "auth", "hash"];

/// Ends of names that only say where something is, or how much of it there is.
const HARMLESS_ENDS: [&str; 8] = ["file", "path", "socket", "count", "total", "len", "age", "ms"];

fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let is_pin = |part: &&&str| {
        **part != "pin" || plain == "pin" || plain.ends_with("pin") || plain.ends_with("pincode")
    };
    let is_named = SECRET_NAMES.iter().filter(is_pin).any(|part| plain.contains(part))
        || SECRET_WHOLE.contains(&plain.as_str())
        || plain.ends_with("key");
    is_named && !HARMLESS_ENDS.iter().any(|end| plain.ends_with(end) && plain != *end)
}

/// Removes secrets from a document, in fields and in texts.
pub fn document(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if is_secret_name(name) && !field.is_null() && !field.is_boolean() {
                    *field = REMOVED.into();
                } else {
                    document(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(document),
        Value::String(words) => *words = text(words),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Removes secrets from lines of text: logs, configuration that could not be read as such.
pub fn text(input: &str) -> String {
    let mut is_in_pem = false;
    let lines = input.split('\n').map(|one| {
        if one.contains("-----BEGIN ") {
            is_in_pem = true;
        }
        let was_in_pem = is_in_pem;
        if one.contains("-----END ") {
            is_in_pem = false;
        }
        if was_in_pem { REMOVED.to_owned() } else { line(&without_hashes(one)) }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How password hashes begin, as crypt(5) and mosquitto write them: `$7$101$salt$hash`.
const HASHES: [&str; 7] = ["$5$", "$6$", "$7$", "$2a$", "$2b$", "$2y$", "$argon2"];

/// Each goes up to the next space or quote: what is in it may look like anything.
fn without_hashes(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some(at) = HASHES.iter().filter_map(|start| line.find(start)).min() {
        let end = line[at..].find([' ', '"', '\'', ',', '\t']).map_or(line.len(), |len| at + len);
        line.replace_range(at..end, REMOVED);
    }
    line
}

/// `name: value`, `name=value`, `"name":"value"`, then words that look like keys.
fn line(input: &str) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find([':', '=']) {
        let (before, after) = rest.split_at(at);
        let name = last_word(before);
        out.push_str(&words(before));
        out.push_str(&after[..1]);
        let after = &after[1..];
        if is_secret_name(name) || is_login(before, after) {
            let value = value_len(after, name);
            let lead = after.len() - after.trim_start_matches([' ', '"', '\'']).len();
            if value > lead {
                out.push_str(&after[..lead]);
                out.push_str(REMOVED);
            }
            rest = &after[value.max(lead)..];
        } else {
            rest = after;
        }
    }
    out.push_str(&words(rest));
    out
}

fn last_word(before: &str) -> &str {
    let trimmed = before.trim_end_matches([' ', '"', '\'']);
    trimmed.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).next().unwrap_or_default()
}

/// `//user:password@host`: what stands between the colon and the at sign.
fn is_login(before: &str, after: &str) -> bool {
    let is_after_scheme =
        before.rfind("//").is_some_and(|at| !before[at + 2..].contains(['/', ' ']) && at + 2 < before.len());
    let end = after.find(['/', ' ', '"']).unwrap_or(after.len());
    is_after_scheme && after[..end].contains('@')
}

/// How long the secret is that begins here, with what stands before it: to the closing quote, or to a space or comma;
/// behind a header's name, and where YAML goes to the end of the line, to that.
fn value_len(after: &str, name: &str) -> usize {
    let lead = after.len() - after.trim_start_matches(' ').len();
    let value = &after[lead..];
    if let Some(quote) = value.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        return value[1..].find(quote).map_or(after.len(), |end| lead + 1 + end);
    }
    if lead > 0 || name.eq_ignore_ascii_case("authorization") {
        // `password: two words`, `Authorization: Bearer x`.
        return value.find([',', '}', '"']).map_or(after.len(), |end| lead + end);
    }
    value.find([' ', ',', '}', '"', '&', ';']).map_or(after.len(), |end| lead + end)
}

/// Shorter runs are names, addresses and numbers.
const KEY_LEN: usize = 32;

/// Replaces words that look like keys: join tokens, password hashes, and long runs of letters with digits among them.
fn words(input: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '.' | '$');
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        out.push_str(if is_key(word) { REMOVED } else { word });
        let gap = after.find(is_of_word).unwrap_or(after.len());
        out.push_str(&after[..gap]);
        rest = &after[gap..];
    }
    out
}

fn is_key(word: &str) -> bool {
    if ["kb1.", "eyJ"].iter().any(|start| word.contains(start)) && word.len() > 8 {
        return true;
    }
    word.split(['.', '/', '-', '_']).any(is_run) || (word.len() >= KEY_LEN && is_base64_like(word))
}

/// One run of letters and digits, as hex and base32 are.
fn is_run(run: &str) -> bool {
    let has = |is: fn(&char) -> bool| run.chars().any(|c| is(&c));
    run.len() >= KEY_LEN && has(char::is_ascii_digit) && has(char::is_ascii_alphabetic)
}

/// Base64 has capital and small letters, digits, and few separators; paths and names have words.
fn is_base64_like(word: &str) -> bool {
    let count = |is: fn(&char) -> bool| word.chars().filter(&is).count();
    let (capitals, digits) = (count(char::is_ascii_uppercase), count(char::is_ascii_digit));
    capitals * 6 >= word.len() && digits * 20 >= word.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_and_what_helps_stays() {
        let cases = [
            ("join with kb1.mfrggzdfmztwq2lk.nbswy3dpeb3w64tmmq", "join with (removed)"),
            (
                "connecting as alice password=hunter2 to 10.0.0.1:1883",
                "connecting as alice password=(removed) to 10.0.0.1:1883",
            ),
            (r#"{"token":"abc","node":"edge/a"}"#, r#"{"token":"(removed)","node":"edge/a"}"#),
            ("  password: two words", "  password: (removed)"),
            ("Authorization: Bearer abc.def", "Authorization: (removed)"),
            ("mqtt://alice:hunter2@broker:1883/x", "mqtt://alice:(removed)"),
            ("PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", "PrivateKey = (removed)"),
            ("peer xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= is away", "peer (removed)= is away"),
            ("alice:$7$101$c2FsdA==$aGFzaA==", "alice:(removed)"),
            ("password-file: /etc/kubebus/mqtt-password", "password-file: /etc/kubebus/mqtt-password"),
            (
                "2026-11-30T09:00:00Z  INFO node: cannot reach the cloud why=no answer",
                "2026-11-30T09:00:00Z  INFO node: cannot reach the cloud why=no answer",
            ),
            (
                "spiffe://water/edge/plant-a-pump-house-number-3",
                "spiffe://water/edge/plant-a-pump-house-number-3",
            ),
            ("/var/lib/kubebus/records/history", "/var/lib/kubebus/records/history"),
        ];
        for (input, expected) in cases {
            assert_eq!(text(input), expected, "{input}");
        }
    }

    #[test]
    fn keys_in_pem_go_whole() {
        let input = "before\n-----BEGIN PRIVATE KEY-----\nMIGH\nAgEA\n-----END PRIVATE KEY-----\nafter";
        assert_eq!(text(input), "before\n(removed)\n(removed)\n(removed)\n(removed)\nafter");
    }

    #[test]
    fn documents_lose_secret_fields_at_any_depth() {
        let mut value = json!({
            "spec": { "protocol": { "configData": { "password": "p", "url": "opc.tcp://u:secret@host", "port": 502 } } },
            "tokens": [{ "secret": "s" }], "mqtt": { "passwordFile": "/etc/p", "anonymous": true, "pin": 7, "spin": 3 },
            "keyspace": 3, "preshared_key": "k", "pinned": "x",
        });
        document(&mut value);
        let expected = json!({
            "spec": { "protocol": { "configData": { "password": REMOVED, "url": "opc.tcp://u:(removed)", "port": 502 } } },
            "tokens": REMOVED, "mqtt": { "passwordFile": "/etc/p", "anonymous": true, "pin": REMOVED, "spin": REMOVED },
            "keyspace": 3, "preshared_key": REMOVED, "pinned": "x",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn no_input_is_too_strange() {
        for input in ["", ":", "=", "password:", "password=\"", "//:@", "ä:ö=ü", "key=ä\"", "-----BEGIN "]
        {
            let _ = text(input);
        }
    }
}
