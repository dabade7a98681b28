"""Which object store the settings mean, and what of it a runner is told."""

import asyncio

import pytest

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.opening import open_object_store, runner_store, s3_connection
from cryomamba_apiserver.adapters.s3_store import S3ObjectStore
from cryomamba_apiserver.settings import SettingsError, read_settings
from cryomamba_crds.task import DirectoryStore, S3Store

PLACE = {"CRYOMAMBA_S3_ENDPOINT": "https://s3.example.org", "CRYOMAMBA_S3_BUCKET": "volumes"}
KEYS = {"CRYOMAMBA_S3_ACCESS_KEY": "an-access-key", "CRYOMAMBA_S3_SECRET_KEY": "a-secret-key"}


def settings(tmp_path, **variables: str):
    return read_settings({"CRYOMAMBA_DATA_DIR": str(tmp_path), **variables})


def test_without_settings_the_store_is_a_directory_of_the_data_directory(tmp_path):
    chosen = settings(tmp_path)

    assert isinstance(open_object_store(chosen), DirectoryObjectStore)
    assert runner_store(chosen).store == DirectoryStore(root=str(tmp_path / "store" / "objects"))
    assert runner_store(chosen).environment == {}


def test_with_endpoint_and_bucket_it_is_s3(tmp_path):
    chosen = settings(tmp_path, **PLACE, **KEYS, CRYOMAMBA_S3_REGION="eu-west-1", CRYOMAMBA_S3_PATH_STYLE="false")
    store = open_object_store(chosen)
    asyncio.run(store.close())

    told = runner_store(chosen)

    assert isinstance(store, S3ObjectStore)
    assert told.store == S3Store(
        endpoint="https://s3.example.org", bucket="volumes", region="eu-west-1", path_style=False
    )
    assert told.environment == KEYS


def test_what_is_secret_is_never_shown(tmp_path):
    chosen = settings(tmp_path, **PLACE, **KEYS, CRYOMAMBA_S3_SESSION_TOKEN="a-token")

    shown = repr(chosen) + repr(s3_connection(chosen)) + repr(runner_store(chosen))

    assert [secret for secret in ("an-access-key", "a-secret-key", "a-token") if secret in shown] == []


def test_keys_are_read_from_files(tmp_path):
    (tmp_path / "access").write_text("from-a-file\n")
    (tmp_path / "secret").write_text("this too\n")

    chosen = settings(
        tmp_path,
        **PLACE,
        CRYOMAMBA_S3_ACCESS_KEY_FILE=str(tmp_path / "access"),
        CRYOMAMBA_S3_SECRET_KEY_FILE=str(tmp_path / "secret"),
    )

    assert runner_store(chosen).environment == {
        "CRYOMAMBA_S3_ACCESS_KEY": "from-a-file",
        "CRYOMAMBA_S3_SECRET_KEY": "this too",
    }


HTTP = {**PLACE, "CRYOMAMBA_S3_ENDPOINT": "http://s3.example.org"}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CRYOMAMBA_S3_ENDPOINT": "https://s3.example.org", **KEYS}, "CRYOMAMBA_S3_BUCKET is needed"),
        ({"CRYOMAMBA_S3_BUCKET": "volumes", **KEYS}, "CRYOMAMBA_S3_BUCKET is of no use"),
        ({"CRYOMAMBA_S3_PUBLIC_ENDPOINT": "https://s3.example.org"}, "CRYOMAMBA_S3_PUBLIC_ENDPOINT is of no use"),
        (PLACE, "CRYOMAMBA_S3_ACCESS_KEY and CRYOMAMBA_S3_ACCESS_KEY_FILE"),
        ({**PLACE, "CRYOMAMBA_S3_ACCESS_KEY": "a"}, "CRYOMAMBA_S3_SECRET_KEY and CRYOMAMBA_S3_SECRET_KEY_FILE"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_SECRET_KEY": ""}, "CRYOMAMBA_S3_SECRET_KEY"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_SECRET_KEY_FILE": __file__}, "CRYOMAMBA_S3_SECRET_KEY_FILE"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_CA_FILE": "/nowhere.pem"}, "CRYOMAMBA_S3_CA_FILE"),
        ({**HTTP, **KEYS, "CRYOMAMBA_S3_CA_FILE": __file__}, "CRYOMAMBA_S3_CA_FILE is of no use"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_CA_FILE": __file__}, "CRYOMAMBA_S3_CA_FILE holds no certificates"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_BUCKET": "No_Bucket"}, "CRYOMAMBA_S3_BUCKET"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_ENDPOINT": "s3.example.org"}, "CRYOMAMBA_S3_ENDPOINT"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_ENDPOINT": "https://s3.example.org/path"}, "CRYOMAMBA_S3_ENDPOINT"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_ENDPOINT": "https://u:p@s3.example.org"}, "CRYOMAMBA_S3_ENDPOINT"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_PUBLIC_ENDPOINT": "ftp://x"}, "CRYOMAMBA_S3_PUBLIC_ENDPOINT"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_REGION": "no region"}, "CRYOMAMBA_S3_REGION"),
        ({**PLACE, **KEYS, "CRYOMAMBA_S3_PATH_STYLE": "perhaps"}, "CRYOMAMBA_S3_PATH_STYLE"),
    ],
)
def test_a_wrong_combination_is_refused_by_name(tmp_path, variables, named):
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, **variables)

    assert named in str(error.value)
    assert [secret for secret in KEYS.values() if secret in str(error.value)] == []
