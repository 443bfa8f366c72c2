// Checks npm's memcached against the server at HOST PORT; prints the number of operations.
'use strict';

const assert = require('node:assert');
const { promisify } = require('node:util');
const Memcached = require('memcached');

const EXPIRY_LIMIT_MS = 5000;

async function main() {
  const client = new Memcached(`${process.argv[2]}:${process.argv[3]}`, {
    timeout: 20000,
    retries: 0,
    maxValue: 1048576,
  });
  const call = (method, ...args) => promisify(client[method].bind(client))(...args);
  // The client reports "not stored" as an error of its own.
  const refused = async (...args) => {
    try {
      return (await call(...args)) === false;
    } catch {
      return true;
    }
  };
  let operations = 0;
  const check = (name, got, expected) => {
    assert.deepStrictEqual(got, expected, name);
    operations += 1;
  };

  check('set', await call('set', 'a', 'one', 0), true);
  check('get', await call('get', 'a'), 'one');
  check('get miss', await call('get', 'nothing'), undefined);
  check('set object', await call('set', 'typed', { x: [1, 2] }, 0), true);
  check('get object', await call('get', 'typed'), { x: [1, 2] });
  check('add', await call('add', 'b', 'two', 0), true);
  check('add twice', await refused('add', 'b', 'three', 0), true);
  check('replace', await call('replace', 'b', 'four', 0), true);
  check('replace miss', await refused('replace', 'nothing', 'five', 0), true);
  check('append', await call('append', 'b', '!'), true);
  check('prepend', await call('prepend', 'b', '<'), true);
  check('appended', await call('get', 'b'), '<four!');
  const many = {};
  for (let n = 0; n < 50; n += 1) {
    many[`many:${n}`] = `value ${n}`;
    await call('set', `many:${n}`, many[`many:${n}`], 0);
  }
  check('getMulti', { ...(await call('getMulti', [...Object.keys(many), 'nothing'])) }, many);
  const { cas } = await call('gets', 'a');
  check('cas', await call('cas', 'a', 'six', cas, 0), true);
  check('cas old', await refused('cas', 'a', 'seven', cas, 0), true);
  check('cas value', await call('get', 'a'), 'six');
  check('set number', await call('set', 'n', 10, 0), true);
  check('incr', await call('incr', 'n', 5), 15);
  check('decr', await call('decr', 'n', 20), 0);
  check('touch', await call('touch', 'a', 1000), true);
  check('del', await call('del', 'a'), true);
  check('del miss', await refused('del', 'a'), true);
  const large = 'x'.repeat(1000000);
  check('set 1 MB', await call('set', 'large', large, 0), true);
  check('get 1 MB', (await call('get', 'large')) === large, true);
  check('expiring', await call('set', 'short', 'lived', 1), true);
  const deadline = Date.now() + EXPIRY_LIMIT_MS;
  while ((await call('get', 'short')) !== undefined) {
    assert(Date.now() < deadline, 'an item of one second is still there');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  check('version', (await call('version'))[0].version.split('.').length, 3);
  check('stats', (await call('stats')).length, 1);
  check('flush', (await call('flush'))[0], true);
  check('flushed', await call('get', 'large'), undefined);
  client.end();
  console.log(`${operations} operations`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
