"""The policy file: what it means, and what is said of a bad one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.cli import main
from numad_py.errors import PolicyError
from numad_py.policy.keys import TABLES
from numad_py.policy.load import defaults, load
from numad_py.policy.match import Subject, match
from numad_py.policy.schema import Mode

SAMPLE = Path(__file__).parents[2] / "config" / "numad-py.toml"


def problems(path: Path, text: str | bytes, *, privileged: bool = False) -> tuple[str, ...]:
    """Return what is wrong with a policy, less the name of its folder."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PolicyError) as caught:
        load(path, privileged=privileged)
    return tuple(p.replace(f"{path.parent}/", "") for p in caught.value.problems)


def test_the_sample_says_the_defaults() -> None:
    """The shipped file parses, and every value in it is the default."""
    assert replace(load(SAMPLE), sources=()) == replace(defaults(), sources=())


def test_the_sample_has_every_key() -> None:
    """Whoever opens the file for the first time sees all there is."""
    lines = SAMPLE.read_text().splitlines()
    for table, (_, keys) in TABLES.items():
        assert f"[{table}]" in lines
        for key in keys:
            assert any(line.startswith(f"{key} = ") for line in lines), key


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    """Each problem stands with file, line, key and what to write instead."""
    found = problems(
        tmp_path / "p.toml",
        """\
[daemon]
interval = 5
mode = "acting"

[placment]
headroom = "5%"

[migration]
chunk = "16M"

[[rule]]
name = "x"
comm = "("

[[rule]]
name = "y"
""",
    )
    assert found == (
        (
            "p.toml:2: daemon.interval: 5 is not a duration; write one with its unit "
            '(ms, s, min, h, d), as in "5s"'
        ),
        'p.toml:3: daemon.mode: \'acting\' is not one of "observe", "advise", "act"',
        "p.toml:5: placment: no such table (did you mean placement?)",
        "p.toml:9: migration.chunk: '16M' has no unit known here; did you mean \"16MiB\"?",
        (
            "p.toml:13: rule.comm: '(' is not a regular expression: missing ), unterminated "
            "subpattern at position 0"
        ),
        (
            "p.toml:15: rule: would match every process; give at least one of comm, exe, cmdline, "
            "user, unit, cgroup, container"
        ),
    )


def test_problems_stand_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    """As whoever mends them goes: the main file first, from top to bottom, taken names too."""
    rule = "[[rule]]\nname = 'x'\ncomm = 'x'\n"
    path = tmp_path / "p.toml"
    path.write_text(f"[log]\na = 1\n{rule}{rule}[daemon]\nb = 1\n[log2]\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/10-a.toml").write_text("[daemon]\nc = 1\n")
    with pytest.raises(PolicyError) as caught:
        load(path)
    heads = [":".join(p.replace(f"{tmp_path}/", "").split(":")[:2]) for p in caught.value.problems]
    assert heads == ["p.toml:2", "p.toml:6", "p.toml:10", "p.toml:11", "conf.d/10-a.toml:2"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("256MB/s", "256MiB/s"), ("1.5 gb/s", "1.5GiB/s"), ("256M", "256MiB/s")],
)
def test_a_rate_in_other_units_is_told_what_it_may_mean(
    tmp_path: Path, text: str, meant: str
) -> None:
    """MB is what people write; what it would be here is said, and not taken for it."""
    (problem,) = problems(tmp_path / "p.toml", f"[migration]\nrate = '{text}'\n")
    assert problem.endswith(f'{text!r} is not a rate; did you mean "{meant}"?')


@pytest.mark.parametrize("text", ["1B/s", "1023KiB/s", "1B"])
def test_a_rate_at_which_nothing_would_ever_arrive_is_refused(tmp_path: Path, text: str) -> None:
    """It is more likely a slip than a wish, and what can be written is said."""
    (problem,) = problems(tmp_path / "p.toml", f"[migration]\nrate = '{text}'\n")
    said = f'p.toml:2: migration.rate: {text!r} is out of range: 1MiB/s or more, or "unlimited"'
    assert problem == said


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1MiB/s", 1 << 20), ("1GiB/s", 1 << 30), ("1GiB", 1 << 30), ("unlimited", None)],
)
def test_a_rate_is_bytes_in_a_second(tmp_path: Path, text: str, rate: int | None) -> None:
    """With or without "/s", as the manual says."""
    path = tmp_path / "p.toml"
    path.write_text(f"[migration]\nrate = '{text}'\n")
    assert load(path).migration.rate_bytes_per_s == rate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "p.toml:1: the file is empty"),
        (b" \n", "p.toml:1: the file is empty"),
        (b"[daemon\n", "p.toml:1: not TOML"),
        (b"# \xff\n", "p.toml:1: not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_said_to_be_so(tmp_path: Path, text: bytes, said: str) -> None:
    """Empty (an interrupted write), malformed and binary files are told apart."""
    (problem,) = problems(tmp_path / "p.toml", text)
    assert problem.startswith(said)


def test_a_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    """The message names the path and the sample."""
    with pytest.raises(PolicyError, match=r"no such file; copy config/numad-py\.toml"):
        load(tmp_path / "none.toml")


def test_a_file_that_others_can_write_is_refused_with_rights(tmp_path: Path) -> None:
    """It would lend the daemon's rights to whoever can write it."""
    path = tmp_path / "p.toml"
    path.write_text("# all defaults\n")
    path.chmod(0o666)
    assert load(path).daemon.mode is Mode.ACT
    with pytest.raises(PolicyError, match="chmod go-w"):
        load(path, privileged=True)


def test_drop_ins_win_by_name_and_null_links_switch_them_off(tmp_path: Path) -> None:
    """Later files win key by key, and their rules stand first."""
    (tmp_path / "conf.d").mkdir()
    main_file = tmp_path / "p.toml"
    main_file.write_text("[daemon]\ninterval = '5s'\nmode = 'observe'\n")
    (tmp_path / "conf.d/10-a.toml").write_text("[daemon]\ninterval = '7s'\n")
    (tmp_path / "conf.d/20-b.toml").write_text("[[rule]]\nname = 'mine'\ncomm = '^x$'\n")
    (tmp_path / "conf.d/30-c.toml").symlink_to("/dev/null")
    policy = load(main_file)
    assert (policy.daemon.interval_s, policy.daemon.mode) == (7.0, Mode.OBSERVE)
    assert policy.rules[0].name == "mine"


def test_check_config_ends_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts tell a bad policy by the exit code."""
    path = tmp_path / "p.toml"
    path.write_text("[daemon]\nmod = 'act'\n")
    assert main(["check-config", str(path)]) == 78
    assert "p.toml:2: daemon.mod: no such key (did you mean mode?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "cmdline"),
    [
        ("vllm", "python3 -m vllm.entrypoints.openai.api_server --model x"),
        ("vllm", "/opt/venv/bin/python -u -m vllm.entrypoints.openai.api_server"),
        ("vllm", "/usr/bin/python3 /usr/local/bin/vllm serve meta-llama/Llama-3-8B"),
        ("vllm", "VLLM::EngineCore"),
        ("vllm", "VLLM::Worker_TP0"),
        ("sglang", "python3 -m sglang.launch_server --model-path x"),
        ("sglang", "sglang::scheduler_TP0"),
        ("llama.cpp", "/opt/llama.cpp/build/bin/llama-server -m model.gguf"),
        ("ollama", "/usr/local/bin/ollama serve"),
        ("ollama", "/usr/local/bin/ollama runner --model /root/.ollama/blobs/x --port 40001"),
        ("triton", "tritonserver --model-repository=/models"),
        ("tgi", "text-generation-launcher --model-id x"),
        ("tgi", "/opt/conda/bin/python /opt/conda/bin/text-generation-server serve x"),
        ("tei", "text-embeddings-router --model-id x"),
        ("ovms", "/ovms/bin/ovms --config_path /models/config.json"),
        ("torchserve", "java -Xmx4g -cp x org.pytorch.serve.ModelServer --models all"),
        ("torchserve", "/usr/bin/python3 /usr/lib/python3/ts/model_service_worker.py --port 9000"),
        ("ray-serve", "ray::ServeReplica:default:LLM"),
        ("ktransformers", "python -m ktransformers.server.main --port 10002"),
    ],
)
def test_known_servers_are_known(rule: str, cmdline: str) -> None:
    """Real command lines match the shipped rule of their server."""
    found = match(defaults(), subject(cmdline)).rule
    assert found is not None
    assert found.name == rule


@pytest.mark.parametrize(
    "cmdline",
    [
        "vim vllm.py",
        "grep -r vllm.entrypoints .",
        "tail -f llama-server.log",
        "pip install vllm",
        "docker run vllm/vllm-openai --model x",
        "systemctl restart ollama",
        "ollama list",
        "git clone llama.cpp",
        "python train.py",
        "bash -c 'python -m vllm.entrypoints.openai.api_server'",
        "",
    ],
)
def test_programs_that_only_name_a_server_are_no_workers(cmdline: str) -> None:
    """Editors, pagers and installers are left alone."""
    assert match(defaults(), subject(cmdline)).rule is None


def subject(cmdline: str) -> Subject:
    """Return a process of that command line."""
    return Subject("x", "", tuple(cmdline.split()), "root", 0, None, None, None)
