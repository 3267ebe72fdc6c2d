import time
from tests.faults.conftest import tree
def test_smoke(curate, tiny, tmp_path, reference):
    t=time.time()
    r = reference()
    print("ref", time.time()-t)
    t=time.time()
    e = curate.run("run", tiny.yaml, "--run-dir", tmp_path/"r", fault={"count": str(tmp_path/"c")})
    print("second", time.time()-t); print(e.err)
    print(len((tmp_path/"c").read_text().splitlines()))
    t=time.time()
    e = curate.run("run", tiny.yaml, "--run-dir", tmp_path/"r")
    print("again", time.time()-t); print(e.err)
    import os; os.environ["X"]="1"
    print(tree(r).keys())
    assert tree(r)==tree(tmp_path/"r")
