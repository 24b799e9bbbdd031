//! Facts from a C header: finds each struct, field and constant it publishes, and has a C compiler say where they lie.
//! It reads as much C as that one header uses, and knows nothing of our tables.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, fs};

/// What the header publishes, in its order.
#[derive(Default, Debug, PartialEq)]
pub struct Names {
    structs: Vec<(String, Vec<Member>)>,
    constants: Vec<String>,
}

/// A member of a struct, those of nested ones with their path.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    path: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Unsigned,
    Signed,
    Struct,
    Tail,
}

/// The facts of a header, as the compiler `cc` finds them; the reason when there is no compiler.
pub fn facts(cc: &str, header: &Path) -> Result<String, String> {
    let names = names(&fs::read_to_string(header).map_err(|error| format!("{}: {error}", header.display()))?);
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("facts");
    let compiler = Command::new(cc).args(["-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped()).spawn();
    let mut compiler = compiler.map_err(|error| format!("no C compiler {cc}: {error}"))?;
    compiler.stdin.take().unwrap().write_all(source(&names, header).as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success(), "{cc} does not compile what was made of {}", header.display());
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success(), "the program made of {} fails", header.display());
    Ok(String::from_utf8(output.stdout).unwrap())
}

/// A program that prints the facts.
fn source(names: &Names, header: &Path) -> String {
    let mut c = String::from("#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n");
    writeln!(c, "#define PAGE_SIZE 4096\n#include \"{}\"\nint main(void) {{", header.display()).unwrap();
    for (name, members) in &names.structs {
        writeln!(c, "printf(\"struct {name} %zu\\n\", sizeof(struct {name}));").unwrap();
        for Member { path, kind } in members {
            let offset = format!("offsetof(struct {name}, {path})");
            let size = format!("sizeof(((struct {name} *)0)->{path})");
            let kind = match kind {
                Kind::Unsigned => 'u',
                Kind::Signed => 'i',
                Kind::Struct => 's',
                Kind::Tail => {
                    writeln!(c, "printf(\"tail {name}.{path} %zu\\n\", {offset});").unwrap();
                    continue;
                }
            };
            writeln!(c, "printf(\"field {name}.{path} %zu %zu {kind}\\n\", {offset}, {size});").unwrap();
        }
    }
    for name in &names.constants {
        // Bit 31 of an `int` must not become a sign.
        let number = format!("sizeof({name}) == 4 ? (uint32_t)({name}) : (unsigned long long)({name})");
        writeln!(c, "printf(\"value {name} %llu\\n\", {number});").unwrap();
    }
    c + "return 0;\n}\n"
}

/// Everything a header publishes.
fn names(text: &str) -> Names {
    let text = without_comments(text).replace("\\\n", " ");
    let (directives, code): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let mut names = Names::default();
    for directive in directives {
        // A macro with parameters has them right after its name, one without a value is a guard.
        let mut words = directive.split_whitespace();
        if let (Some("#define"), Some(name), Some(_)) = (words.next(), words.next(), words.next())
            && !name.contains('(')
        {
            names.constants.push(name.to_string());
        }
    }
    let tokens = tokens(&code.join("\n"));
    let mut tokens = tokens.iter().map(String::as_str).peekable();
    while let Some(token) = tokens.next() {
        match token {
            "struct" => {
                let name = tokens.next().unwrap().to_string();
                assert_eq!(tokens.next(), Some("{"), "struct {name}");
                names.structs.push((name, members(&mut tokens)));
            }
            "enum" => {
                let body = tokens.by_ref().skip_while(|token| *token != "{").skip(1);
                let body: Vec<_> = body.take_while(|token| *token != "}").collect();
                let entries = body.split(|token| *token == ",").filter_map(|entry| entry.first());
                names.constants.extend(entries.map(|name| name.to_string()));
            }
            ";" => {}
            other => panic!("neither struct nor enum: {other}"),
        }
    }
    names
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut code = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").unwrap().1;
    }
    code + rest
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    for character in code.chars().chain([' ']) {
        if character.is_ascii_alphanumeric() || character == '_' {
            word.push(character);
            continue;
        }
        if !word.is_empty() {
            tokens.push(core::mem::take(&mut word));
        }
        if !character.is_whitespace() {
            tokens.push(character.to_string());
        }
    }
    tokens
}

/// The members up to the closing brace, which is taken too.
fn members<'a>(tokens: &mut core::iter::Peekable<impl Iterator<Item = &'a str>>) -> Vec<Member> {
    let mut found = Vec::new();
    loop {
        let first = tokens.next().unwrap();
        if first == "}" {
            return found;
        }
        if tokens.peek() == Some(&"{") {
            tokens.next();
            let inner = members(tokens);
            // What has no name of its own gives its members to the struct around it.
            match tokens.next().unwrap() {
                ";" => found.extend(inner),
                name => {
                    found.push(Member { path: name.to_string(), kind: Kind::Struct });
                    let path = |member: Member| Member { path: format!("{name}.{}", member.path), ..member };
                    found.extend(inner.into_iter().map(path));
                    assert_eq!(tokens.next(), Some(";"), "after {name}");
                }
            }
            continue;
        }
        let rest: Vec<_> = tokens.by_ref().take_while(|token| *token != ";").collect();
        let (declared, array) = rest.split_at(rest.iter().position(|token| *token == "[").unwrap_or(rest.len()));
        let kind = match first {
            _ if array == ["[", "]"] => Kind::Tail,
            "struct" => Kind::Struct,
            "int8_t" | "int16_t" | "int32_t" | "int64_t" => Kind::Signed,
            "uint8_t" | "uint16_t" | "uint32_t" | "uint64_t" | "char" => Kind::Unsigned,
            other => panic!("a type this reader does not know: {other}"),
        };
        found.push(Member { path: declared.last().unwrap().to_string(), kind });
    }
}

#[test]
fn the_reader_finds_what_a_header_publishes() {
    let names = names(
        "#ifndef G\n#define G\n#define ONE 1 /* #define NOT 2 */\n#define TWO \\\n 2\n#define F(x) x\n\
         struct a { uint32_t x; int64_t y[3]; struct b z;\n union { struct { char p; } n; uint16_t q; }; char t[]; };\n\
         enum e { THREE = 3, FOUR, };\n#endif\n",
    );
    let member = |&(path, kind): &(&str, Kind)| Member { path: path.to_string(), kind };
    let members = [
        ("x", Kind::Unsigned),
        ("y", Kind::Signed),
        ("z", Kind::Struct),
        ("n", Kind::Struct),
        ("n.p", Kind::Unsigned),
        ("q", Kind::Unsigned),
        ("t", Kind::Tail),
    ];
    let expected = Names {
        structs: [("a".to_string(), members.iter().map(member).collect())].into(),
        constants: ["ONE", "TWO", "THREE", "FOUR"].map(String::from).into(),
    };
    assert_eq!(names, expected);
}
