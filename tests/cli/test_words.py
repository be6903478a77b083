"""Which commands there are, and by which words they are found."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sublet.cli.main import sublet as root
from sublet.cli.words import NOUNS, VERBS

GUIDE = (Path(__file__).parents[2] / "docs" / "how-to" / "command-line.md").read_text()
PLANE = {
    "SUBLET_BASE_URL": "https://plane",
    "SUBLET_API_KEY": "sk-secret",
    "SUBLET_ACCOUNT_ID": "acme",
}


def every_command(group=root, path=()):
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        yield (*path, word), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, word))


def found(*words):
    command = root
    for word in words:
        command = command.get_command(click.Context(command), word)
    return command


PAIRS = [
    (verb, noun)
    for verb in VERBS
    for noun in NOUNS
    if found(verb).get_command(click.Context(root), noun)
]


def test_every_verb_and_every_noun_is_used():
    assert {verb for verb, _ in PAIRS} == set(VERBS)
    assert {noun for _, noun in PAIRS} == set(NOUNS)


@pytest.mark.parametrize(("verb", "noun"), PAIRS, ids=lambda word: word)
def test_a_command_is_found_in_either_order(verb, noun):
    assert found(verb, noun) is found(noun, verb)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("list datasets", "list dataset"),
        ("create ds", "create dataset"),
        ("get job", "get sftj"),
        ("jobs list", "sftj list"),
        ("supervised-fine-tuning-job cancel", "cancel sftj"),
        ("create dpo-job", "create dpoj"),
        ("list watches", "watch list"),
        ("list audit-logs", "audit-log list"),
        ("delete api-keys", "api-key delete"),
        ("rlor-trainer-job get", "get reinforcement-step"),
    ],
)
def test_plurals_and_short_names_mean_the_same(words, meant):
    assert found(*words.split()) is found(*meant.split())


def test_the_guide_lists_every_noun_with_its_other_names_and_its_verbs():
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) ?\| ([a-z ]+) \|$", GUIDE, re.MULTILINE)
    assert [(noun, verbs.split()) for noun, _, verbs in rows] == [
        (noun, [verb for verb in VERBS if (verb, noun) in PAIRS]) for noun in NOUNS
    ]
    for noun, others, _ in rows:
        assert {found(other) for other in re.findall("`(.+?)`", others)} <= {found(noun)}


def test_every_command_explains_itself():
    commands = dict(every_command())
    assert len(commands) > 2 * len(PAIRS)
    for words, command in commands.items():
        shown = CliRunner().invoke(root, [*words, "-h"])
        assert shown.exit_code == 0, (words, shown.output)
        assert command.get_short_help_str(60).strip(), words


def test_the_first_help_fits_a_screen():
    shown = CliRunner().invoke(root, ["--help"]).stdout
    assert len(shown.splitlines()) < 50
    assert all(word in shown for word in (*VERBS, *NOUNS, "doctor", "local"))


# --- what is sent ---------------------------------------------------------------------------------


def asked(said, line):
    done = said("--dry-run", "--output=json", *line.split(), **PLANE)
    assert done.exit_code == 0, done.output
    assert "sk-secret" not in done.output
    request = json.loads(done.stdout)
    return f"{request['method']} {request['url'].removeprefix('https://plane')}", request["body"]


SFTJ = "--dataset accounts/acme/datasets/d --base-model accounts/fireworks/models/tiny-random"
SFTJ_BODY = {
    "dataset": "accounts/acme/datasets/d",
    "baseModel": "accounts/fireworks/models/tiny-random",
}
EVERY_SETTING = (
    "--epochs 2 --learning-rate 1e-5 --lora-rank 16 --max-context-length 4096 --batch-size 65536 "
    "--learning-rate-warmup-steps 3 --optimizer-weight-decay 0.1 --gradient-accumulation-steps 1 "
    "--batch-size-samples 0 --evaluation-dataset e --early-stop --eval-auto-carveout "
    "--learning-rate-scheduler linear --learning-rate-min-lr-ratio 0.2 --lora-alpha 32 "
    "--lora-dropout 0.1 --target-module q_proj --target-module v_proj --use-rslora --use-dora "
    "--drop-long-rows --display-name D"
)
REINFORCEMENT = (
    "--output-model m --loss-method DAPO --reward-weight score=0.5 --reward-weight length "
    "--epochs 1 --accelerator-count 2 --accelerator-type NVIDIA_H100_80GB"
)
JOBS = "/v1/accounts/acme/supervisedFineTuningJobs"
STEPS = "/v1/accounts/acme/rlorTrainerJobs"


@pytest.mark.parametrize(
    ("line", "request_line", "body"),
    [
        (
            "create dataset d --external-url gs://bucket-name/object-name",
            "POST /v1/accounts/acme/datasets",
            {"datasetId": "d", "dataset": {"externalUrl": "gs://bucket-name/object-name"}},
        ),
        ("get account", "GET /v1/accounts/acme", None),
        ("dataset delete d", "DELETE /v1/accounts/acme/datasets/d", None),
        ("get dataset accounts/acme/datasets/d", "GET /v1/accounts/acme/datasets/d", None),
        (
            "update dataset d --display-name D",
            "PATCH /v1/accounts/acme/datasets/d",
            {"displayName": "D"},
        ),
        (
            f"create sftj {SFTJ} --output-model m --job-id j",
            f"POST {JOBS}?supervisedFineTuningJobId=j",
            {**SFTJ_BODY, "outputModel": "m"},
        ),
        (
            f"create sftj {SFTJ} --job-id j {EVERY_SETTING}",
            f"POST {JOBS}?supervisedFineTuningJobId=j",
            {
                **SFTJ_BODY,
                "epochs": 2,
                "learningRate": 1e-5,
                "loraRank": 16,
                "maxContextLength": 4096,
                "batchSize": 65536,
                "learningRateWarmupSteps": 3,
                "optimizerWeightDecay": 0.1,
                "gradientAccumulationSteps": 1,
                "batchSizeSamples": 0,
                "evaluationDataset": "e",
                "earlyStop": True,
                "evalAutoCarveout": True,
                "learningRateScheduler": "linear",
                "learningRateMinLrRatio": 0.2,
                "loraAlpha": 32,
                "loraDropout": 0.1,
                "targetModules": ["q_proj", "v_proj"],
                "useRslora": True,
                "useDora": True,
                "dropLongRows": True,
                "displayName": "D",
            },
        ),
        ("cancel job j", f"POST {JOBS}/j:cancel", {}),
        ("resume sftj j", f"POST {JOBS}/j:resume", {}),
        ("get receipt j", f"GET {JOBS}/j:receipt", None),
        (
            f"create rlor-trainer-job --dataset d --base-model b --job-id s {REINFORCEMENT}",
            f"POST {STEPS}?rlorTrainerJobId=s",
            {
                "dataset": "d",
                "trainingConfig": {
                    "baseModel": "b",
                    "outputModel": "m",
                    "epochs": 1,
                    "acceleratorCount": 2,
                    "acceleratorType": "NVIDIA_H100_80GB",
                },
                "rewardWeights": ["score=0.5", "length"],
                "lossConfig": {"method": "DAPO"},
            },
        ),
        (
            "create dpoj --dataset d --warm-start-from m --job-id p --loss-method DPO --beta 0.2",
            "POST /v1/accounts/acme/dpoJobs?dpoJobId=p",
            {
                "dataset": "d",
                "trainingConfig": {"warmStartFrom": "m"},
                "lossConfig": {"method": "DPO", "dpo": {"beta": 0.2}},
            },
        ),
        (
            "list sftj --order-by name --page-size 10 --no-paginate",
            f"GET {JOBS}?orderBy=name&pageSize=10",
            None,
        ),
        ("-a fireworks models list", "GET /v1/accounts/fireworks/models?pageSize=200", None),
        (
            "create watch w --bucket b --prefix data/ --base-model tiny-random --lora-rank 4",
            "POST /v1/accounts/acme/watches",
            {
                "watchId": "w",
                "watch": {
                    "bucket": "b",
                    "prefix": "data/",
                    "trainingTemplate": {"baseModel": "tiny-random", "loraRank": 4},
                },
            },
        ),
        (
            "update watch w --disabled",
            "PATCH /v1/accounts/acme/watches/w",
            {"enabled": False},
        ),
        (
            "create user u --role user --service-account",
            "POST /v1/accounts/acme/users?userId=u",
            {"role": "user", "serviceAccount": True},
        ),
        (
            "create api-key --service-account u --key-name ci --expire-time 2027-01-01",
            "POST /v1/accounts/acme/users/u/apiKeys",
            {"apiKey": {"displayName": "ci", "expireTime": "2027-01-01T00:00:00Z"}},
        ),
        (
            "delete api-key 0123 --user u",
            "POST /v1/accounts/acme/users/u/apiKeys:delete",
            {"keyId": "0123"},
        ),
        (
            "list audit-logs --start-time 2026-11-22T00:00:00Z --email a@b --no-paginate",
            "GET /v1/accounts/acme/auditLogs?startTime=2026-11-22T00%3A00%3A00Z&email=a%40b",
            None,
        ),
        (
            "doctor gs://b/o",
            "POST /v1/accounts/acme/datasets:verify",
            {"externalUrl": "gs://b/o"},
        ),
        ("doctor d", "POST /v1/accounts/acme/datasets/d:verify", {}),
    ],
    ids=lambda value: re.sub(r" -.*", "", value) if isinstance(value, str) else "",
)
def test_a_dry_run_prints_the_request_without_the_key(said, line, request_line, body):
    assert asked(said, line) == (request_line, body)


def test_a_dry_run_is_readable_too(said):
    done = said("create", "dataset", "d", "--external-url", "gs://b/o", "--dry-run", **PLANE)
    first, *body = done.stdout.splitlines()
    assert first == "POST https://plane/v1/accounts/acme/datasets"
    assert json.loads("".join(body))["datasetId"] == "d"


def test_two_jobs_that_are_not_named_are_two_jobs(said):
    """And each keeps its name when its request is sent again."""
    first, second = (asked(said, f"create sftj {SFTJ}")[0] for _ in range(2))
    assert first != second
    assert re.search(r"supervisedFineTuningJobId=sftj-[0-9a-f]{12}$", first)
