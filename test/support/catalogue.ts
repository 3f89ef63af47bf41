import type { Knex } from 'knex';

/** All objects of the schema `public`, one line per object, in a stable order. */
export async function readCatalogue(knex: Knex): Promise<string[]> {
  const lines: string[] = [];
  for (const query of QUERIES) {
    const { rows } = await knex.raw<{ rows: { line: string }[] }>(query);
    lines.push(...rows.map((row) => row.line));
  }
  return lines;
}

/** The names of the tables, without the two tables of Knex. */
export async function readTables(knex: Knex): Promise<string[]> {
  const { rows } = await knex.raw<{ rows: { name: string }[] }>(
    `select c.relname as name from pg_class c where c.relkind in ('r', 'p') and ${inPublic('c.relnamespace')}
     and c.relname not like 'knex\\_%' order by 1`,
  );
  return rows.map((row) => row.name);
}

function inPublic(namespace: string): string {
  return `${namespace} = 'public'::regnamespace`;
}

const QUERIES = [
  `select concat_ws(' ', 'relation', c.relkind::text, c.relname, c.relpersistence::text, c.reloptions::text) as line
   from pg_class c where ${inPublic('c.relnamespace')} order by 1`,

  // Numbered by rank, because attnum also counts dropped columns.
  `select concat_ws(' ', 'column', c.relname,
     lpad(row_number() over (partition by c.oid order by a.attnum)::text, 3, '0'), a.attname,
     format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' else 'null' end,
     'default', coalesce(pg_get_expr(d.adbin, d.adrelid), '-'),
     'identity', a.attidentity::text, 'generated', a.attgenerated::text, 'collation', a.attcollation::text) as line
   from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
   left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
   where c.relkind in ('r', 'p', 'v', 'm') and ${inPublic('c.relnamespace')} order by 1`,

  `select concat_ws(' ', 'constraint', coalesce(c.conrelid::regclass::text, '-'), c.conname, c.contype::text,
     pg_get_constraintdef(c.oid), 'validated', c.convalidated::text, 'deferrable', c.condeferrable::text) as line
   from pg_constraint c where ${inPublic('c.connamespace')} order by 1`,

  `select concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), 'valid', i.indisvalid::text,
     'unique', i.indisunique::text, 'primary', i.indisprimary::text) as line
   from pg_index i join pg_class c on c.oid = i.indexrelid where ${inPublic('c.relnamespace')} order by 1`,

  `select concat_ws(' ', 'sequence', s.sequencename, s.data_type::text, s.start_value, s.min_value, s.max_value,
     s.increment_by, s.cycle::text, s.cache_size, 'of',
     (select d.refobjid::regclass::text || '.' || d.refobjsubid::text from pg_depend d
      where d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass and d.deptype = 'a' limit 1)) as line
   from pg_sequences s where s.schemaname = 'public' order by 1`,

  `select concat_ws(' ', 'type', t.typtype::text, t.typname) as line
   from pg_type t where t.typtype in ('e', 'd', 'r') and ${inPublic('t.typnamespace')} order by 1`,

  `select concat_ws(' ', 'function', p.oid::regprocedure::text) as line
   from pg_proc p where ${inPublic('p.pronamespace')} order by 1`,

  `select concat_ws(' ', 'trigger', g.tgrelid::regclass::text, pg_get_triggerdef(g.oid)) as line
   from pg_trigger g where not g.tgisinternal order by 1`,
];
