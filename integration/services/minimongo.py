"""Tiny MongoDB wire-protocol front (OP_MSG + legacy OP_QUERY hello) over mongomock, loopback only. Enough for drivers' CRUD, indexes, GridFS."""
import asyncio, struct, sys, datetime, itertools, bson, mongomock
from bson.codec_options import CodecOptions
from pymongo.errors import DuplicateKeyError
CLI = mongomock.MongoClient(); CUR = {}; CID = itertools.count(1000); CO = CodecOptions(tz_aware=False)
def hello(): return {"helloOk":True,"ismaster":True,"isWritablePrimary":True,"maxBsonObjectSize":16777216,"maxMessageSizeBytes":48000000,"maxWriteBatchSize":100000,"localTime":datetime.datetime.utcnow(),"logicalSessionTimeoutMinutes":30,"connectionId":1,"minWireVersion":0,"maxWireVersion":21,"readOnly":False,"ok":1.0}
def err(code,msg,name="Error"): return {"ok":0.0,"errmsg":msg,"code":code,"codeName":name}
def cursor(ns,docs,first,key="firstBatch"):
    b,rest=docs[:first],docs[first:]; cid=0
    if rest: cid=next(CID); CUR[cid]=(ns,rest)
    return {"cursor":{key:b,"id":bson.Int64(cid),"ns":ns},"ok":1.0}
def proj(p): return p or None
def run(c):
    name=next(iter(c)); n=name.lower(); db=CLI[c.get("$db","admin")]; v=c[name]
    if n in("hello","ismaster"): return hello()
    if n in("ping","endsessions","killsessions","startsession","refreshsessions"): return {"ok":1.0}
    if n=="buildinfo": return {"version":"7.0.0","versionArray":[7,0,0,0],"gitVersion":"mini","maxBsonObjectSize":16777216,"ok":1.0}
    if n in("getparameter","connectionstatus","saslstart"): return err(59,"not supported","CommandNotFound")
    if n=="dropdatabase": CLI.drop_database(db.name); return {"ok":1.0}
    if n=="listdatabases": return {"databases":[{"name":x} for x in CLI.list_database_names()],"ok":1.0}
    if n=="listcollections": return cursor(db.name+".$cmd.listCollections",[{"name":x,"type":"collection"} for x in db.list_collection_names()],10**9)
    if n=="killcursors":
        for i in c["cursors"]: CUR.pop(int(i),None)
        return {"cursorsKilled":c["cursors"],"cursorsNotFound":[],"cursorsAlive":[],"cursorsUnknown":[],"ok":1.0}
    if n=="getmore":
        if int(v) not in CUR: return err(43,"cursor id not found","CursorNotFound")
        ns,rest=CUR.pop(int(v)); k=c.get("batchSize",101) or 101; b,rest=rest[:k],rest[k:]
        if rest: CUR[int(v)]=(ns,rest)
        return {"cursor":{"nextBatch":b,"id":bson.Int64(int(v) if rest else 0),"ns":ns},"ok":1.0}
    col=db[v] if isinstance(v,str) else None; ns=f"{db.name}.{v}"
    if n=="create": 
        if v in db.list_collection_names(): return err(48,"exists","NamespaceExists")
        db.create_collection(v); return {"ok":1.0}
    if n=="drop":
        if v not in db.list_collection_names(): return err(26,"ns not found","NamespaceNotFound")
        db.drop_collection(v); return {"ns":ns,"ok":1.0}
    if n=="listindexes":
        if v not in db.list_collection_names(): return err(26,"ns does not exist: "+ns,"NamespaceNotFound")
        return cursor(ns,[{"v":2,"key":dict(i["key"]),"name":k} for k,i in col.index_information().items()],10**9)
    if n=="createindexes":
        for i in c["indexes"]:
            kw={k:i[k] for k in("name","unique","sparse","expireAfterSeconds") if k in i}; col.create_index([(k,int(d)) for k,d in i["key"].items()],**kw)
        return {"createdCollectionAutomatically":False,"numIndexesBefore":1,"numIndexesAfter":len(col.index_information()),"ok":1.0}
    if n=="insert":
        k=0; we=[]
        for i,d in enumerate(c["documents"]):
            try: col.insert_one(d); k+=1
            except (DuplicateKeyError,mongomock.DuplicateKeyError) as e:
                we.append({"index":i,"code":11000,"errmsg":"E11000 duplicate key error collection: "+ns,"keyPattern":{"_id":1},"keyValue":{"_id":d.get("_id")}})
                if c.get("ordered",True): break
        return {"n":k,"ok":1.0,**({"writeErrors":we} if we else {})}
    if n=="update":
        m=mod=0; ups=[]; we=[]
        for i,u in enumerate(c["updates"]):
            try:
                q,d=u["q"],u["u"]; up=u.get("upsert",False)
                r=col.replace_one(q,d,upsert=up) if not any(k.startswith("$") for k in d) else (col.update_many if u.get("multi") else col.update_one)(q,d,upsert=up)
            except (DuplicateKeyError,mongomock.DuplicateKeyError): we.append({"index":i,"code":11000,"errmsg":"E11000 duplicate key error"}); continue
            m+=r.matched_count; mod+=r.modified_count or 0
            if r.upserted_id is not None: ups.append({"index":i,"_id":r.upserted_id}); m+=1
        o={"n":m,"nModified":mod,"ok":1.0}
        if ups:o["upserted"]=ups
        if we:o["writeErrors"]=we
        return o
    if n=="delete":
        return {"n":sum((col.delete_one if x.get("limit")==1 else col.delete_many)(x["q"]).deleted_count for x in c["deletes"]),"ok":1.0}
    if n=="find":
        cu=col.find(c.get("filter",{}),proj(c.get("projection")))
        if c.get("sort"): cu=cu.sort([(k,int(d)) for k,d in c["sort"].items()])
        if c.get("skip"): cu=cu.skip(int(c["skip"]))
        if c.get("limit"): cu=cu.limit(abs(int(c["limit"])))
        docs=list(cu); sb=c.get("singleBatch") or c.get("limit",0)<0
        return cursor(ns,docs,10**9 if sb else int(c.get("batchSize",101)))
    if n=="count": return {"n":col.count_documents(c.get("query",{})),"ok":1.0}
    if n=="aggregate": return cursor(ns,list(col.aggregate(c["pipeline"])),int(c.get("cursor",{}).get("batchSize",101)))
    if n=="distinct": return {"values":col.distinct(c["key"],c.get("query")),"ok":1.0}
    if n=="findandmodify":
        a=dict(projection=proj(c.get("fields")),sort=[(k,int(d)) for k,d in c["sort"].items()] if c.get("sort") else None)
        if c.get("remove"): r=col.find_one_and_delete(c.get("query",{}),**a)
        else:
            u=c["update"]; f=col.find_one_and_update if any(k.startswith("$") for k in u) else col.find_one_and_replace
            r=f(c.get("query",{}),u,upsert=c.get("upsert",False),return_document=bool(c.get("new")),**a)
        return {"value":r,"lastErrorObject":{"n":1 if r else 0,"updatedExisting":bool(r)},"ok":1.0}
    return err(59,f"no such command: '{name}'","CommandNotFound")
def msg(body):
    flags,=struct.unpack_from("<I",body); p=4; end=len(body)-(4 if flags&1 else 0); doc={}; seqs={}
    while p<end:
        k=body[p]; p+=1
        if k==0: l,=struct.unpack_from("<i",body,p); doc=bson.decode(body[p:p+l],CO); p+=l
        else:
            l,=struct.unpack_from("<i",body,p); e=p+l; q=body.index(0,p+4); name=body[p+4:q].decode(); q+=1; ds=[]
            while q<e: dl,=struct.unpack_from("<i",body,q); ds.append(bson.decode(body[q:q+dl],CO)); q+=dl
            seqs[name]=ds; p=e
    doc.update(seqs); return flags,doc
async def serve(r,w):
    try:
        while True:
            h=await r.readexactly(16); ln,rid,_,op=struct.unpack("<iiii",h); b=await r.readexactly(ln-16)
            if op==2013:
                fl,c=msg(b)
                try: o=run(c)
                except Exception as e: o=err(8000,f"{type(e).__name__}: {e}","InternalError"); print("ERR",c and next(iter(c)),e,file=sys.stderr)
                if fl&2: continue
                out=struct.pack("<I",0)+b"\0"+bson.encode(o); w.write(struct.pack("<iiii",16+len(out),rid,rid,2013)+out)
            elif op==2004:
                out=struct.pack("<iqii",8,0,0,1)+bson.encode(hello()); w.write(struct.pack("<iiii",16+len(out),rid,rid,1)+out)
            else: break
            await w.drain()
    except (asyncio.IncompleteReadError,ConnectionError): pass
    finally: w.close()
async def main(port):
    s=await asyncio.start_server(serve,"127.0.0.1",port,limit=1<<26); print("minimongo on",s.sockets[0].getsockname()[1],flush=True)
    async with s: await s.serve_forever()
asyncio.run(main(int(sys.argv[1]) if len(sys.argv)>1 else 27017))
