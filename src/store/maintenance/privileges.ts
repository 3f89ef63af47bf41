import type { Knex } from 'knex';
import { USAGE_PARTITIONS, usagePartition } from '../../../migrations/0020_usage.js';
import { CURRENT_SCHEMA } from '../../../migrations/convert_table.js';
import { StartError } from '../../errors.js';
import { quoted } from './schema.js';

/** A privilege that the role of the service lacks, and the remedy: usually the statement that grants it. */
export interface MissingPrivilege {
  readonly finding: string;
  readonly remedy: string;
}

/** Privileges by table. */
type Privileges = Readonly<Record<string, readonly string[]>>;

const ALL = ['select', 'insert', 'update', 'delete'];

/** The privileges that the service needs. */
const NEEDED: Privileges = {
  knex_migrations: ['select'],
  // Only in an imported database.
  adopted_tables: ['select'],
  store_state: ['select', 'update'],
  store_seeds: ['select', 'insert'],
  config_revisions: ['select', 'insert', 'delete'],
  idempotent_answers: ALL,
  agent_configs: ALL,
  agent_llm_configs: ALL,
  llm_providers: ALL,
  llm_models: ALL,
  llm_prices: ALL,
  llm_credentials: ALL,
  encryption_keys: ALL,
  config_health: ALL,
  watchers: ALL,
  audit_events: ['select', 'insert', 'delete'],
  api_tokens: ALL,
  llm_usage_attempt_ids: ['select', 'insert', 'delete'],
  llm_usage_attempts: ['select', 'insert', 'delete'],
  ...Object.fromEntries(Array.from({ length: USAGE_PARTITIONS }, (_, slot) => [usagePartition(slot), ['truncate']])),
  llm_usage_hourly: ['select', 'insert', 'update'],
  llm_usage_adjustments: ['select', 'insert', 'delete'],
  llm_usage_losses: ['select', 'insert', 'delete'],
  llm_budgets: ALL,
  llm_budget_counters: ALL,
  llm_budget_reservations: ALL,
  llm_experiments: ALL,
  llm_experiment_variants: ALL,
  llm_experiment_assignments: ALL,
  llm_experiment_latency: ALL,
  llm_experiment_exposures: ALL,
  llm_experiment_runs: ALL,
  llm_experiment_outcomes: ALL,
  llm_experiment_subject_outcomes: ALL,
  llm_experiment_outcome_sums: ALL,
};
const SEQUENCES = [
  'agent_configs',
  'agent_llm_configs',
  'llm_providers',
  'llm_models',
  'llm_prices',
  'llm_credentials',
  'audit_events',
  'api_tokens',
  'llm_usage_adjustments',
  'llm_budgets',
  'llm_experiments',
];

interface Facts {
  readonly role: string;
  readonly schema: string;
  readonly database: string;
  readonly may_create: boolean;
  readonly read_only: boolean;
}

/** Finds missing privileges of the service. */
export const missingPrivileges = (knex: Knex): Promise<MissingPrivilege[]> => findMissing(knex, NEEDED, SEQUENCES);

/** Finds the privilege that the service does not need, but `store renew`. */
export async function missingForRenewal(knex: Knex): Promise<MissingPrivilege[]> {
  const missing = await findMissing(knex, { config_revisions: ['update'] });
  return missing.map(({ finding, remedy }) => ({ finding: `${finding}, which agentllm store renew needs`, remedy }));
}

/**
 * Reads only the system catalogue of PostgreSQL, which every role may read. Tables that do not exist yet are ignored.
 * The functions are called inside CASE because they fail for other kinds of relations, which the planner may evaluate
 * first.
 * @param sequences tables whose sequences are needed.
 */
async function findMissing(
  knex: Knex,
  privileges: Privileges,
  sequences: readonly string[] = [],
): Promise<MissingPrivilege[]> {
  const needed = Object.entries(privileges).flatMap(([table, all]) => all.map((one) => [table, one] as const));
  const { rows } = await knex.raw<{ rows: { name: string; privilege: string; sequence: boolean }[] }>(
    `select w.name, w.privilege, false as sequence
       from unnest(?::text[], ?::text[]) with ordinality as w (name, privilege, place)
       join pg_class c on c.relname = w.name and c.relnamespace = ${CURRENT_SCHEMA} and c.relkind in ('r', 'p')
      where not case when c.relkind in ('r', 'p') then has_table_privilege(c.oid, w.privilege) else true end
     union all
     select s.oid::regclass::text, 'usage', true
       from unnest(?::text[]) as w (name)
       join pg_class c on c.relname = w.name and c.relnamespace = ${CURRENT_SCHEMA} and c.relkind in ('r', 'p')
       join pg_depend d on d.refobjid = c.oid and d.deptype in ('a', 'i') and d.classid = 'pg_class'::regclass
       join pg_class s on s.oid = d.objid and s.relkind = 'S'
      where not case when s.relkind = 'S' then has_sequence_privilege(s.oid, 'usage') else true end`,
    [needed.map(([table]) => table), needed.map(([, privilege]) => privilege), sequences as string[]],
  );
  if (rows.length === 0) return [];
  const { role, schema } = await readFacts(knex);
  const byName = groupBy(rows, ({ name }) => name);
  const groups = groupBy([...byName.values()], (lacking) => lacking.map(({ privilege }) => privilege).join(', '));
  return Array.from(groups, ([privileges, all]) => {
    const what = all[0]?.[0]?.sequence ? 'sequence' : 'table';
    const names = all.map(([first]) => first?.name).join(', ');
    return {
      finding: `Role "${role}" lacks ${privileges} on ${what} ${names} in schema "${schema}"`,
      remedy: `grant ${privileges} on ${what} ${names} to ${quoted(role)}`,
    };
  });
}

/** Finds conditions that prevent migrations: a read-only database, and missing privileges or ownership. */
export async function missingForMigrations(knex: Knex): Promise<MissingPrivilege[]> {
  const { role, schema, database, may_create, read_only } = await readFacts(knex);
  const found: MissingPrivilege[] = [];
  if (read_only)
    found.push({
      finding: `Database "${database}" is read-only (a standby, or default_transaction_read_only is on), so its schema cannot be created or migrated`,
      remedy: 'use the primary server, or set default_transaction_read_only to off',
    });
  if (!may_create)
    found.push({
      finding: `Role "${role}" may not create tables in schema "${schema}" of database "${database}"`,
      remedy: `grant create on schema ${quoted(schema)} to ${quoted(role)}`,
    });
  const { rows } = await knex.raw<{ rows: { name: string; owner: string }[] }>(
    `select c.relname as name, pg_get_userbyid(c.relowner) as owner from pg_class c
      where c.relname = any(?::text[]) and c.relnamespace = ${CURRENT_SCHEMA} and c.relkind in ('r', 'p')
        and not pg_has_role(c.relowner, 'usage') order by 1`,
    [Object.keys(NEEDED)],
  );
  const [first] = rows;
  if (first)
    found.push({
      finding: `Role "${role}" does not own the tables ${rows.map(({ name }) => name).join(', ')}, so it cannot migrate them`,
      remedy: `grant ${quoted(first.owner)} to ${quoted(role)}`,
    });
  return found;
}

async function readFacts(knex: Knex): Promise<Facts> {
  const { rows } = await knex.raw<{ rows: Facts[] }>(
    `select current_user as role, current_schema() as schema, current_database() as database,
       has_schema_privilege(current_schema(), 'create') as may_create,
       current_setting('transaction_read_only') = 'on' or pg_is_in_recovery() as read_only`,
  );
  return rows[0] as Facts;
}

/** Throws a StartError with one line per missing privilege. */
export function refuseMissing(missing: readonly MissingPrivilege[]): void {
  if (missing.length === 0) return;
  throw new StartError(missing.map(({ finding, remedy }) => `${finding}. Remedy: ${remedy}`).join('\n'));
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
