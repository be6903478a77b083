"""A list is what is there, in order, in pages, and no more than was asked for."""

import pytest
from google.api_core import exceptions as google_errors

NAMES = ["a", "b/1", "b/2", "c/d/1", "c/d/2.txt", "e", "ä", "\U0001f600"]


def names(blobs):
    return [blob.name for blob in blobs]


@pytest.fixture(scope="module")
def bucket(running):
    made = running.bucket()
    for name in NAMES:
        made.blob(name).upload_from_string(b"")
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_pages_of_any_size_make_the_same_list(bucket, size):
    assert names(bucket.list_blobs(page_size=size)) == NAMES
    folded = bucket.list_blobs(delimiter="/", page_size=size)
    assert (names(folded), folded.prefixes) == (["a", "e", "ä", "\U0001f600"], {"b/", "c/"})


def test_a_list_ends_where_it_was_told_to(bucket):
    assert names(bucket.list_blobs(max_results=3)) == NAMES[:3]


@pytest.mark.parametrize(
    ("query", "items", "prefixes"),
    [
        ({"prefix": "c/"}, ["c/d/1", "c/d/2.txt"], set()),
        ({"prefix": "c/", "delimiter": "/"}, [], {"c/d/"}),
        ({"prefix": "c/d/", "delimiter": "/"}, ["c/d/1", "c/d/2.txt"], set()),
        ({"prefix": "c", "delimiter": "/d/"}, [], {"c/d/"}),
        ({"prefix": "nothing"}, [], set()),
        ({"start_offset": "b/2", "end_offset": "e"}, ["b/2", "c/d/1", "c/d/2.txt"], set()),
        ({"start_offset": "c", "prefix": "b"}, [], set()),
        ({"match_glob": "b/*"}, ["b/1", "b/2"], set()),
        ({"match_glob": "*"}, ["a", "e", "ä", "\U0001f600"], set()),
        ({"match_glob": "**1"}, ["b/1", "c/d/1"], set()),
        ({"match_glob": "?/[!2]"}, ["b/1"], set()),
        ({"match_glob": "{a,**/*.txt}"}, ["a", "c/d/2.txt"], set()),
        ({"match_glob": "c/**", "delimiter": "/"}, [], {"c/"}),
    ],
)
def test_a_list_is_of_what_was_asked_for(bucket, query, items, prefixes):
    found = bucket.list_blobs(**query)
    assert (names(found), found.prefixes) == (items, prefixes)


def test_a_folder_that_is_an_object_is_listed_as_both_if_so_asked(cloud):
    bucket = cloud.bucket()
    for name in ("f/", "f/1", "g/2"):
        bucket.blob(name).upload_from_string(b"")
    without = bucket.list_blobs(delimiter="/")
    assert (names(without), without.prefixes) == ([], {"f/", "g/"})
    with_them = bucket.list_blobs(delimiter="/", include_trailing_delimiter=True)
    assert (names(with_them), with_them.prefixes) == (["f/"], {"f/", "g/"})


@pytest.mark.parametrize("yes", ["true", "True", "TRUE"])
def test_a_boolean_may_be_written_as_anybody_writes_it(cloud, http, yes):
    bucket = cloud.bucket(versioned=True)
    for _ in range(2):
        bucket.blob("data").upload_from_string(b"")
    listed = http("GET", f"/storage/v1/b/{bucket.name}/o?versions={yes}").json()
    assert len(listed["items"]) == 2


def test_versions_of_one_name_come_in_pages_too(cloud):
    bucket = cloud.bucket(versioned=True)
    blob = bucket.blob("data")
    written = []
    for _ in range(5):
        blob.upload_from_string(b"")
        written.append(blob.generation)
    listed = bucket.list_blobs(versions=True, page_size=2)
    assert [found.generation for found in listed] == written


def test_a_folder_of_many_objects_is_passed_over(cloud):
    bucket = cloud.bucket()

    def fill(inside):
        with inside.database.transaction():
            inside.database.execute_many(
                "INSERT INTO objects VALUES (?, ?, ?, 1, 0, '', '', 'none', '{}', ?, ?, NULL)",
                [
                    (bucket.name, f"{folder}/{number:04d}", number + 1, now, now)
                    for now in (cloud.clock.now().isoformat(),)
                    for folder in ("deep", "wide")
                    for number in range(1200)
                ],
            )

    cloud.do(fill)
    folded = bucket.list_blobs(delimiter="/")
    assert (names(folded), folded.prefixes) == ([], {"deep/", "wide/"})
    assert len(names(bucket.list_blobs())) == 2400
    cloud.do(
        lambda inside: inside.database.execute("DELETE FROM objects WHERE bucket = ?", bucket.name)
    )


@pytest.mark.parametrize(
    "query",
    [
        "pageToken=x",
        "maxResults=many",
        "maxResults=-1",
        "matchGlob=*&delimiter=x",
        "versions=true&softDeleted=true",
    ],
)
def test_a_list_that_makes_no_sense_is_refused(bucket, cloud, http, query):
    assert http("GET", f"/storage/v1/b/{bucket.name}/o?{query}").status_code == 400


def test_buckets_are_listed_by_prefix_and_in_pages(cloud):
    made = [cloud.bucket().name for _ in range(3)]
    stem = made[0][:-1]
    listed = cloud.client().list_buckets(prefix="bucket-", page_size=1)
    assert set(made) <= {bucket.name for bucket in listed}
    listed = [bucket.name for bucket in cloud.client().list_buckets(prefix=stem)]
    assert made[0] in listed and listed == sorted(listed)


def test_a_list_of_a_bucket_that_is_not_there_is_not_found(cloud):
    with pytest.raises(google_errors.NotFound):
        list(cloud.client().list_blobs("no-such-bucket-here"))
