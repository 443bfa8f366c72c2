// Checks npm's memjs, which speaks the binary protocol, against the server at HOST PORT; prints the number of operations.
'use strict';

const assert = require('node:assert');
const memjs = require('memjs');

const EXPIRY_LIMIT_MS = 5000;

async function main() {
  const client = memjs.Client.create(`${process.argv[2]}:${process.argv[3]}`, { timeout: 20, retries: 0 });
  // What the callback gets behind the error: the value and flags of a get, success and value of a counter.
  const call = (method, ...args) =>
    new Promise((resolve, reject) => {
      client[method](...args, (error, ...results) => (error ? reject(error) : resolve(results)));
    });
  let operations = 0;
  const check = (name, got, expected) => {
    assert.deepStrictEqual(got, expected, name);
    operations += 1;
  };
  const first = async (...args) => (await call(...args))[0];
  const text = async (key) => {
    const value = await first('get', key);
    return value === null ? null : value.toString();
  };

  check('set', await first('set', 'a', 'one', {}), true);
  check('get', await text('a'), 'one');
  check('get miss', await text('nothing'), null);
  check('add', await first('add', 'b', 'two', {}), true);
  check('add twice', await first('add', 'b', 'three', {}), false);
  check('replace', await first('replace', 'b', 'four', {}), true);
  check('replace miss', await first('replace', 'nothing', 'five', {}), false);
  check('append', await first('append', 'b', '!'), true);
  // The client reports "not stored" as an error of its own.
  check('append miss', await first('append', 'nothing', '!').catch(() => false), false);
  check('prepend', await first('prepend', 'b', '<'), true);
  // This version's prepend sends the opcode of append.
  check('appended', await text('b'), 'four!<');
  const many = Array.from({ length: 50 }, (_, n) => n);
  await Promise.all(many.map((n) => call('set', `many:${n}`, `value ${n}`, {})));
  check(
    'pipelined gets',
    await Promise.all(many.map((n) => text(`many:${n}`))),
    many.map((n) => `value ${n}`),
  );
  check('increment creates', await call('increment', 'n', 1, { initial: 10, expires: 100 }), [true, 10]);
  check('increment', await call('increment', 'n', 5, {}), [true, 15]);
  check('decrement', await call('decrement', 'n', 20, {}), [true, 0]);
  check('touch', await first('touch', 'a', 1000), true);
  check('touch miss', await first('touch', 'nothing', 1000), false);
  check('delete', await first('delete', 'a'), true);
  check('delete miss', await first('delete', 'a'), false);
  const large = Buffer.alloc(1000000, 'abcdefg');
  check('set 1 MB', await first('set', 'large', large, {}), true);
  check('get 1 MB', large.equals(await first('get', 'large')), true);
  check('expiring', await first('set', 'short', 'lived', { expires: 1 }), true);
  const deadline = Date.now() + EXPIRY_LIMIT_MS;
  while ((await text('short')) !== null) {
    assert(Date.now() < deadline, 'an item of one second is still there');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const [, stats] = await call('stats');
  check('stats', 'curr_items' in stats, true);
  await call('flush');
  check('flushed', await text('large'), null);
  client.quit();
  console.log(`${operations} operations`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
