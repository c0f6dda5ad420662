//! JSON Schemas of serde's types, read from their sources: the fields with the names that serde gives them, and what
//! their doc comments say. It knows the Rust that our documents are written in, and panics at what it does not know.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Types that are written as one word or number, and what to call that.
const LEAVES: [(&str, &str, &str); 23] = [
    ("String", "string", ""),
    ("Name", "string", "name"),
    ("bool", "boolean", ""),
    ("u8", "integer", ""),
    ("u16", "integer", ""),
    ("u64", "integer", ""),
    ("i64", "integer", ""),
    ("usize", "integer", ""),
    ("f64", "number", ""),
    ("Slot", "integer", "1 to 16"),
    ("Span", "string", "duration"),
    ("Duration", "string", "duration"),
    ("PathBuf", "string", "path"),
    ("IpAddr", "string", "address"),
    ("IpNet", "string", "network"),
    ("Ipv4Net", "string", "IPv4 network"),
    ("SocketAddr", "string", "address:port"),
    ("Resolver", "string", "address[:port]"),
    ("BitRate", "string", "rate"),
    ("Collector", "string", "URL, or off"),
    ("DmiSocket", "string", "path, or off"),
    ("Value", "any", "value"),
    ("Json", "any", "any JSON"),
];

/// What the sources define.
#[derive(Debug, Default)]
pub(super) struct Types(BTreeMap<String, Type>);

#[derive(Debug)]
struct Type {
    doc: String,
    untagged: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

#[derive(Debug)]
struct Field {
    name: String,
    kind: String,
    required: bool,
    doc: String,
}

#[derive(Debug)]
struct Variant {
    name: String,
    inner: Option<String>,
    doc: String,
}

/// Comments and attributes that stand before something.
#[derive(Debug, Default)]
struct Before {
    doc: Vec<String>,
    attributes: String,
}

impl Before {
    /// Whether the line was one of these.
    fn takes(&mut self, line: &str) -> bool {
        if let Some(doc) = line.strip_prefix("///") {
            self.doc.push(doc.trim().to_owned());
        } else if line.starts_with("#[") {
            self.attributes += line;
        } else {
            return false;
        }
        true
    }

    fn doc(&self) -> String {
        self.doc.join(" ")
    }

    fn says(&self, word: &str) -> bool {
        self.attributes.contains(word)
    }

    /// Of `rename = "x"`.
    fn text(&self, key: &str) -> Option<&str> {
        let (_, rest) = self.attributes.split_once(&format!("{key} = \""))?;
        rest.split_once('"').map(|(text, _)| text)
    }
}

impl Types {
    /// What these sources define.
    pub(super) fn read(sources: &[&str]) -> Self {
        let mut types = Self::default();
        for source in sources {
            types.add(source);
        }
        types
    }

    fn add(&mut self, source: &str) {
        let mut before = Before::default();
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            if before.takes(line) {
                continue;
            }
            let words: Vec<&str> = line.split(' ').filter(|word| !word.starts_with("pub")).collect();
            if let [what @ ("struct" | "enum"), name, "{"] = words[..] {
                let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
                self.0.insert(name.to_owned(), Type::read(&before, what, &body));
            }
            before = Before::default();
        }
    }

    /// The schema of a type, its name and doc comment with it.
    pub(super) fn schema(&self, kind: &str) -> Value {
        self.of(kind, &mut Vec::new())
    }

    fn of(&self, kind: &str, within: &mut Vec<String>) -> Value {
        let inner = |outer| kind.strip_prefix(outer).and_then(|rest: &str| rest.strip_suffix('>'));
        if let Some(kind) = inner("Option<").or_else(|| inner("Box<")) {
            return self.of(kind, within);
        }
        if let Some(kind) = inner("Vec<") {
            return json!({ "type": "array", "items": self.of(kind, within) });
        }
        if let Some(kind) = inner("BTreeMap<String, ") {
            return json!({ "type": "object", "additionalProperties": self.of(kind, within) });
        }
        if kind == "Labels" {
            return json!({ "type": "object", "additionalProperties": { "type": "string" } });
        }
        if let Some((_, plain, format)) = LEAVES.iter().find(|(name, ..)| *name == kind) {
            let format = if format.is_empty() { plain } else { format };
            return json!({ "type": plain, "format": format });
        }
        if within.iter().any(|outer| outer == kind) {
            return json!({ "$ref": kind });
        }
        let known = self.0.get(kind).unwrap_or_else(|| panic!("'{kind}' is in none of the sources"));
        within.push(kind.to_owned());
        let mut schema = self.of_type(known, within);
        within.pop();
        schema["title"] = kind.into();
        schema["description"] = known.doc.clone().into();
        schema
    }

    fn of_type(&self, known: &Type, within: &mut Vec<String>) -> Value {
        match &known.body {
            Body::Struct(fields) => self.of_struct(fields, within),
            Body::Enum(variants) if known.untagged => {
                let inner = variants.iter().filter_map(|variant| variant.inner.as_deref());
                json!({ "anyOf": inner.map(|kind| self.of(kind, within)).collect::<Vec<_>>() })
            }
            Body::Enum(variants) => {
                json!({ "oneOf": variants.iter().map(|variant| self.of_variant(variant, within)).collect::<Vec<_>>() })
            }
        }
    }

    fn of_struct(&self, fields: &[Field], within: &mut Vec<String>) -> Value {
        let mut properties = Map::new();
        for field in fields {
            let mut schema = self.of(&field.kind, within);
            if !field.doc.is_empty() {
                schema["description"] = field.doc.clone().into();
            }
            properties.insert(field.name.clone(), schema);
        }
        let required: Vec<_> =
            fields.iter().filter(|field| field.required).map(|field| &field.name).collect();
        let order: Vec<_> = fields.iter().map(|field| &field.name).collect();
        json!({ "type": "object", "properties": properties, "required": required, "x-order": order })
    }

    fn of_variant(&self, variant: &Variant, within: &mut Vec<String>) -> Value {
        match &variant.inner {
            None => json!({ "const": variant.name, "description": variant.doc }),
            Some(kind) => {
                let mut inner = self.of(kind, within);
                inner["description"] = variant.doc.clone().into();
                let properties = json!({ variant.name.clone(): inner });
                json!({ "type": "object", "properties": properties, "description": variant.doc, "required": [variant.name] })
            }
        }
    }
}

impl Type {
    fn read(before: &Before, what: &str, body: &[&str]) -> Self {
        let renaming = before.text("rename_all").unwrap_or_default();
        let body = if what == "struct" {
            Body::Struct(fields(body, renaming, before.says("default)")))
        } else {
            Body::Enum(variants(body, renaming))
        };
        Self { doc: before.doc(), untagged: before.says("untagged"), body }
    }
}

fn fields(body: &[&str], renaming: &str, all_default: bool) -> Vec<Field> {
    let mut before = Before::default();
    let mut fields = Vec::new();
    for line in body.iter().map(|line| line.trim()) {
        if before.takes(line) {
            continue;
        }
        let line = line.trim_end_matches(',');
        let (name, kind) = line.split_once(": ").unwrap_or_else(|| panic!("'{line}' is no field"));
        let name = name.rsplit(' ').next().unwrap_or(name); // without pub
        let renamed = before.text("rename").map(ToOwned::to_owned);
        fields.push(Field {
            name: renamed.unwrap_or_else(|| rename(name, renaming)),
            kind: kind.to_owned(),
            required: !(all_default || before.says("default") || kind.starts_with("Option<")),
            doc: before.doc(),
        });
        before = Before::default();
    }
    fields
}

fn variants(body: &[&str], renaming: &str) -> Vec<Variant> {
    let mut before = Before::default();
    let mut variants = Vec::new();
    for line in body.iter().map(|line| line.trim()) {
        if before.takes(line) {
            continue;
        }
        let line = line.trim_end_matches(',');
        let (name, inner) = match line.split_once('(') {
            Some((name, inner)) => (name, Some(inner.trim_end_matches(')').to_owned())),
            None => (line, None),
        };
        variants.push(Variant { name: rename(name, renaming), inner, doc: before.doc() });
        before = Before::default();
    }
    variants
}

/// As serde does it, from `snake_case` or `PascalCase`.
fn rename(name: &str, renaming: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    match renaming {
        "" => name.to_owned(),
        "kebab-case" => snake.replace('_', "-"),
        "lowercase" => snake.replace('_', ""),
        "UPPERCASE" => snake.replace('_', "").to_uppercase(),
        "camelCase" => {
            let mut words = snake.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            words.fold(first, |text, word| {
                let (initial, rest) = word.split_at(1.min(word.len()));
                text + &initial.to_uppercase() + rest
            })
        }
        other => panic!("renaming by '{other}' is not known here"),
    }
}

/// One line of a table of fields.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// `spec.inputs.<name>.maxAge`; a list's entries are `[]`.
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) required: bool,
    pub(super) what: String,
}

/// All fields below `schema`, each before what is in it.
pub(super) fn rows(schema: &Value, at: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(items) = schema.get("items") {
        return self::rows(items, &format!("{at}[]"));
    }
    if let Some(entries) = schema.get("additionalProperties").filter(|entries| entries.is_object()) {
        return self::rows(entries, &format!("{at}.<name>"));
    }
    for alternative in ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten() {
        let inner = self::rows(alternative, at).into_iter().map(|row| Row { required: false, ..row });
        rows.extend(inner);
    }
    for name in order(schema) {
        let (path, inner) = (format!("{at}.{name}"), &schema["properties"][&name]);
        let required = schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        let what = format!("{}{}", inner["description"].as_str().unwrap_or_default(), choices(inner));
        rows.push(Row { path: path.trim_start_matches('.').to_owned(), kind: kind(inner), required, what });
        rows.extend(
            self::rows(inner, &path)
                .into_iter()
                .map(|row| Row { path: row.path.trim_start_matches('.').to_owned(), ..row }),
        );
    }
    rows
}

/// What each of several words means, where that is said.
fn choices(schema: &Value) -> String {
    let words = schema["oneOf"].as_array().into_iter().flatten();
    let said = words.filter_map(|word| Some((word["const"].as_str()?, word["description"].as_str()?)));
    said.filter(|(_, what)| !what.is_empty()).map(|(word, what)| format!(" `{word}`: {what}")).collect()
}

/// As written in the source, where that is known.
fn order(schema: &Value) -> Vec<String> {
    let properties = schema["properties"].as_object().into_iter().flat_map(Map::keys);
    match schema["x-order"].as_array() {
        Some(order) => order.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        None => properties.cloned().collect(),
    }
}

/// What may stand there, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(outer) = schema["$ref"].as_str() {
        return format!("{} again", outer.to_lowercase());
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    if let Some(entries) = schema.get("additionalProperties").filter(|entries| entries.is_object()) {
        return format!("map of {}", kind(entries));
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(one) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let mut kinds: Vec<String> = one.iter().map(kind).collect();
        kinds.dedup();
        return kinds.join(", ");
    }
    match (schema["required"].as_array().map(Vec::as_slice), schema["format"].as_str()) {
        (Some([name]), _) if schema.get("x-order").is_none() => {
            format!("`{{{}: ..}}`", name.as_str().unwrap_or_default())
        }
        (_, Some(format)) => format.to_owned(),
        (_, None) => schema["type"].as_str().unwrap_or("any").to_owned(),
    }
}

#[test]
fn a_schema_says_what_serde_reads() {
    let types = Types::read(&["\
/// A valve.
#[serde(rename_all = \"camelCase\", deny_unknown_fields)]
pub struct Valve {
    /// How far.
    pub max_travel: f64,
    #[serde(default, rename = \"for\")]
    lasting: Option<Span>,
    pub(crate) parts: Vec<Part>,
}

#[serde(rename_all = \"kebab-case\")]
enum Part {
    /// Of steel.
    StemOfSteel,
    Seat(Name),
}
"]);
    let found = rows(&types.schema("Valve"), "");
    let row = |path: &str, kind: &str, required, what: &str| Row {
        path: path.to_owned(),
        kind: kind.to_owned(),
        required,
        what: what.to_owned(),
    };
    let expected = [
        row("maxTravel", "number", true, "How far."),
        row("for", "duration", false, ""),
        row("parts", "list of `stem-of-steel`, `{seat: ..}`", true, ""),
        row("parts[].seat", "name", false, ""),
    ];
    assert_eq!(found, expected);
}
