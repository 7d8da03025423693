// What node-postgres users do, printed line by line. Arguments: a connection string, and
// one to watch the primary by.
'use strict';
const crypto = require('crypto');
const { Client, Pool } = require('pg');

const say = (...words) => console.log(...words.map((w) => (typeof w === 'string' ? w : JSON.stringify(w))));
const digest = (s) => crypto.createHash('sha256').update(s).digest('hex').slice(0, 16);

async function attempt(label, action) {
  try {
    say(label, '->', (await action()) ?? null);
  } catch (e) {
    say(label, '->', `${e.severity} ${e.code} ${e.message} detail=${e.detail} position=${e.position} constraint=${e.constraint}`);
  }
}

async function main(url, watch) {
  const client = new Client({ connectionString: url, application_name: 'node script' });
  const notices = [];
  client.on('notice', (n) => notices.push(`${n.severity} ${n.code} ${n.message}`));
  await client.connect();
  const rows = async (...q) => (await client.query(...q)).rows;

  await attempt('drop', async () => (await client.query('DROP TABLE IF EXISTS node_item')).command);
  await attempt('create', async () => (await client.query('CREATE TABLE node_item (id serial PRIMARY KEY, name text UNIQUE, doc jsonb, at timestamptz, n bigint)')).command);
  for (let i = 0; i < 5; i++) {
    await attempt('insert', () => rows('INSERT INTO node_item (name, doc, at, n) VALUES ($1, $2, $3, $4) RETURNING *', [`name ${i}`, { i, deep: [1, { a: null }] }, new Date(i * 1e9), 2n ** 40n]));
    await attempt('named', () => rows({ name: 'by-id', text: 'SELECT name, doc FROM node_item WHERE id = $1', values: [i + 1] }));
  }
  await attempt('array mode', () => rows({ text: 'SELECT id, name FROM node_item ORDER BY id', rowMode: 'array' }));
  await attempt('fields', async () => (await client.query('SELECT id, name, at FROM node_item LIMIT 0')).fields.map((f) => [f.name, f.dataTypeID, f.dataTypeSize, f.columnID]));
  await attempt('several', async () => (await client.query("SELECT 1 AS a; INSERT INTO node_item (name) VALUES ('multi'); SELECT 2 AS b")).map((r) => [r.command, r.rowCount, r.rows]));
  await attempt('duplicate', () => rows("INSERT INTO node_item (name) VALUES ('multi')"));
  await attempt('syntax', () => rows('SELEC 1'));
  await attempt('named syntax', () => rows({ name: 'bad', text: 'SELEC $1', values: [1] }));
  await attempt('bad value', () => rows('SELECT $1::int', ['x']));
  await attempt('empty', () => rows(''));

  // Many queries queued at once on one connection, errors among them.
  const queued = [];
  for (let i = 0; i < 100; i++) {
    queued.push(client.query('SELECT 100 / $1::int AS q', [i % 10]).then((r) => r.rows[0].q, (e) => e.code));
  }
  say('queued', await Promise.all(queued));

  // Transactions.
  await client.query('BEGIN');
  await attempt('update', async () => (await client.query("UPDATE node_item SET name = name || '!'")).rowCount);
  await attempt('error', () => rows('SELECT 1 / 0'));
  await attempt('aborted', () => rows('SELECT 1'));
  await attempt('commit', async () => (await client.query('COMMIT')).command);
  await client.query('BEGIN READ ONLY');
  await attempt('read only', () => rows('SELECT count(*) FROM node_item'));
  await attempt('write', async () => (await client.query('DELETE FROM node_item')).rowCount);
  await client.query('ROLLBACK');

  // Large, notices, notifications, a pool.
  const large = await rows('SELECT g, md5(g::text) AS m FROM generate_series(1, 30000) g');
  say('large', large.length, digest(JSON.stringify(large)));
  const wide = 'wide'.repeat(1 << 20);
  await attempt('wide', async () => digest((await rows('SELECT $1::text || $1::text AS w', [wide]))[0].w));
  await client.query("DO $$ BEGIN RAISE NOTICE 'noticed'; RAISE WARNING 'warned'; END $$");
  say('notices', notices);
  const notified = new Promise((resolve) => client.on('notification', (n) => resolve([n.channel, n.payload])));
  await client.query('LISTEN node_news');
  const pool = new Pool({ connectionString: url, max: 5 });
  await pool.query("SELECT pg_notify('node_news', 'hello')");
  say('notified', await notified);
  const sums = await Promise.all([...Array(50).keys()].map((i) => pool.query('SELECT $1::int + count(*)::int AS s FROM node_item', [i]).then((r) => r.rows[0].s)));
  say('pool', sums);
  await pool.end();

  // Settings, cancelling by another connection.
  await client.query("SET TIME ZONE 'Asia/Tokyo'");
  await attempt('zone', () => rows("SELECT TIMESTAMPTZ '2024-01-01 00:00Z'::text AS t, current_setting('application_name') AS a"));
  await client.query('SET statement_timeout = 200');
  await attempt('timeout', () => rows('SELECT pg_sleep(30)'));
  await client.query('RESET statement_timeout');
  const sleeping = attempt('cancelled', () => rows('SELECT pg_sleep(30)'));
  const watcher = new Client({ connectionString: watch });
  await watcher.connect();
  while ((await watcher.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).rows.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await watcher.end();
  const canceller = new Client({ connectionString: url });
  const taken = new Promise((resolve) => canceller.connection.once('end', resolve));
  canceller.cancel(client, client._activeQuery ?? client.activeQuery);
  await sleeping;
  await taken; // until then the second of PostgreSQL's two signals may hit the next statement
  await attempt('alive', () => rows("SELECT 'alive' AS a"));
  await attempt('drop', async () => (await client.query('DROP TABLE node_item')).command);
  await client.end();
}

main(...process.argv.slice(2)).catch((e) => {
  say('failed', String(e.stack));
  process.exit(1);
});
