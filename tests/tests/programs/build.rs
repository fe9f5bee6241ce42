//! Compilers and build tools on a drive: they believe times and run what they made.

use std::fs;
use std::process::Command;

use rdrivefs_tests::world::{Said, run};

use crate::drive::{Drive, missing, sh, try_sh};

const MAKEFILE: &str = "O=$(patsubst src/%.c,obj/%.o,$(wildcard src/*.c))
prog: libf.a
\tcc -o $@ obj/main.o -L. -lf
libf.a: $(O)
\tar rcs $@ $^
obj/%.o: src/%.c inc/all.h
\t@mkdir -p obj
\tcc -O1 -Iinc -c -o $@ $<
";

#[test]
fn make_builds_what_changed_and_nothing_else() {
    let drive = Drive::new();
    let own = drive.outside("project").join("p");
    fs::create_dir_all(own.join("src")).unwrap();
    fs::create_dir_all(own.join("inc")).unwrap();
    fs::write(own.join("Makefile"), MAKEFILE).unwrap();
    let all = (0..12).map(|n| format!("int f{n}(int);\n")).collect::<String>();
    fs::write(own.join("inc/all.h"), all).unwrap();
    for n in 0..12 {
        let text = format!("#include \"all.h\"\nint f{n}(int x) {{ return x + {n}; }}\n");
        fs::write(own.join(format!("src/f{n}.c")), text).unwrap();
    }
    let calls = (0..12).map(|n| format!("s = f{n}(s);")).collect::<String>();
    let main = format!(
        "#include <stdio.h>\n#include \"all.h\"\n\
         int main(void) {{ int s = 0; {calls} printf(\"%d\\n\", s); return 0; }}\n"
    );
    fs::write(own.join("src/main.c"), main).unwrap();
    sh(own.parent().unwrap(), &format!("tar -czf {}/p.tgz p", drive.device.dir_str()));
    sh(&drive.device.dir, "tar xzf p.tgz && make -s -C p -j2");
    let p = drive.path("p");
    assert_eq!(sh(&p, "./prog"), "66\n");
    assert!(sh(&p, "make").contains("up to date"), "a second make builds nothing");
    sh(&p, "sed -i 's/x + 3/x + 1003/' src/f3.c");
    let built = sh(&p, "make");
    assert!(built.contains("src/f3.c") && !built.contains("src/f4.c"), "{built}");
    assert_eq!(sh(&p, "./prog"), "1066\n");
    drive.remount();
    assert!(sh(&p, "make").contains("up to date"), "nor does one after mounting again");
    let built = sh(&p, "touch inc/all.h && make");
    assert_eq!(built.matches("cc -O1").count(), 13, "a touched header builds all: {built}");
}

/// Runs cargo in a folder as a person would: not as a part of the build that runs this test.
fn cargo(dir: &std::path::Path, args: &[&str]) -> Said {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_") && name != "CARGO_HOME" || name.starts_with("RUSTFLAGS") {
            command.env_remove(name);
        }
    }
    let said = run(command.args(args).current_dir(dir).env("CARGO_NET_OFFLINE", "true"));
    assert_eq!(said.code, Some(0), "cargo {args:?}: {said:?}");
    said
}

#[test]
fn cargo_builds_tests_and_builds_again() {
    let drive = Drive::new();
    cargo(&drive.device.dir, &["new", "-q", "--vcs", "none", "hello"]);
    let dir = drive.path("hello");
    cargo(&dir, &["build"]);
    assert_eq!(sh(&dir, "target/debug/hello"), "Hello, world!\n");
    assert!(!cargo(&dir, &["build"]).err.contains("Compiling"), "a second build builds nothing");
    let main = "fn main() { println!(\"two\"); }\n#[test]\nfn t() { assert_eq!(1 + 1, 2); }\n";
    fs::write(dir.join("src/main.rs"), main).unwrap();
    assert!(cargo(&dir, &["test"]).out.contains("1 passed"));
    drive.remount();
    assert!(!cargo(&dir, &["test"]).err.contains("Compiling"), "nor after mounting again");
    cargo(&dir, &["build"]);
    assert_eq!(sh(&dir, "target/debug/hello"), "two\n", "the edit was built");
}

#[test]
fn a_library_built_there_is_loaded_from_there() {
    let drive = Drive::new();
    let dir = drive.dir("lib");
    fs::write(dir.join("one.c"), "int number(void) { return 1; }\n").unwrap();
    fs::write(dir.join("two.c"), "int number(void) { return 2; }\n").unwrap();
    fs::write(dir.join("main.c"), "int number(void); int main(void) { return number(); }\n")
        .unwrap();
    sh(&dir, "cc -shared -fPIC -Wl,-soname,libn.so.1 -o libn.so.1.1 one.c");
    sh(&dir, "ln -s libn.so.1.1 libn.so.1 && ln -s libn.so.1 libn.so && cc -o main main.c -L. -ln");
    let load = || try_sh(&dir, "LD_LIBRARY_PATH=. exec ./main").code;
    assert_eq!(load(), Some(1));
    // As an upgrade does it: another file, and a link that is swung over.
    sh(&dir, "cc -shared -fPIC -Wl,-soname,libn.so.1 -o libn.so.1.2 two.c");
    sh(&dir, "ln -sfn libn.so.1.2 libn.so.1.new && mv -T libn.so.1.new libn.so.1");
    assert_eq!(load(), Some(2), "the new one is loaded");
    drive.remount();
    assert_eq!(load(), Some(2), "also after mounting again");
}

#[test]
fn a_python_environment_made_there_runs_from_there() {
    let promise = "a Python environment on a drive";
    if missing(&["python3"], promise) {
        return;
    }
    let drive = Drive::new();
    let own = drive.outside("venv");
    let make = "python3 -m venv --without-pip v";
    if try_sh(&own, &format!("{make} && v/bin/python -c 1")).code != Some(0) {
        eprintln!("SKIPPED, as this machine's Python makes none: {promise}");
        return;
    }
    let said = try_sh(&drive.device.dir, make);
    assert_eq!(said.code, Some(0), "{said:?}");
    fs::write(drive.path("m.py"), "def f():\n    return 'from the drive'\n").unwrap();
    let prefix = "v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'";
    assert_eq!(sh(&drive.device.dir, prefix), "True\n");
    let import = "unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX; v/bin/python -c 'import m; print(m.f())' && ls __pycache__ | grep -c '^m[.]'";
    assert_eq!(
        sh(&drive.device.dir, import),
        "from the drive\n1\n",
        "and it keeps what it compiled"
    );
}
