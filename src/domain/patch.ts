import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import type { Violation } from '../errors.js';
import { nearest, printable } from './text.js';

/** How one field of an entity can be written. */
export interface FieldSpec {
  readonly schema: z.ZodType;
  /** What the field becomes when it is cleared; absent: it cannot be cleared. */
  readonly cleared?: unknown;
  /** What a message has when the field is absent, besides undefined: `''` or `[]` for fields without presence. */
  readonly absent?: (value: unknown) => boolean;
  /** Whether a value applies although the row has it already: a cost that is sent is a price. */
  readonly appliesUnchanged?: boolean;
}
export type FieldSpecs = Readonly<Record<string, FieldSpec>>;

/** The names of fields that may stand in a body but never in a mask. */
export type OutputOnly = readonly string[];

/**
 * What a request wants changed, three-state: a field that is in `set` gets its
 * value, one that is in `cleared` its cleared value, every other one is kept.
 */
export interface Patch {
  readonly set: Readonly<Record<string, unknown>>;
  readonly cleared: ReadonlySet<string>;
  /** Fields whose value was refused; later rules pass over them. */
  readonly refused: ReadonlySet<string>;
  readonly violations: readonly Violation[];
}

/** Whether a patch says anything of a field. */
export const touches = (patch: Patch, ...fields: readonly string[]): boolean =>
  fields.some((field) => field in patch.set || patch.cleared.has(field) || patch.refused.has(field));

interface Source {
  readonly body: object;
  /** Paths as in AIP-134; empty applies what is present, `*` everything. */
  readonly mask: readonly string[];
  readonly specs: FieldSpecs;
  readonly outputOnly: OutputOnly;
  /** Where the body stands in the request, for example `config`. */
  readonly at: string;
  /**
   * The message as it is read now. A field that has the same value in the body is no change: it is not checked, so that
   * what was read can be sent back whole although the catalogue has changed meanwhile.
   */
  readonly stored?: object | undefined;
}

/** Reads what a request wants changed, with every problem of every field. */
export function readPatch(source: Source): Patch {
  const { specs, at } = source;
  const violations: Violation[] = [];
  const set: Record<string, unknown> = {};
  const cleared = new Set<string>();
  const refused = new Set<string>();
  const named = readMask(source, violations);
  for (const [field, spec] of Object.entries(specs)) {
    const value = valueAt(source.body, field);
    if (value === undefined || spec.absent?.(value)) {
      if (!named?.has(field)) continue;
      if ('cleared' in spec) cleared.add(field);
      else violations.push({ field: `${at}.${field}`, description: 'is required and cannot be cleared' });
    } else if ((!named || named.has(field)) && !isUnchanged(source, field, value)) {
      const result = spec.schema.safeParse(value);
      if (result.success) set[field] = result.data;
      else {
        refused.add(field);
        violations.push(...result.error.issues.map((issue) => violationOf(`${at}.${field}`, issue)));
      }
    }
  }
  return { set, cleared, refused, violations };
}

const isUnchanged = ({ stored, specs }: Source, field: string, value: unknown): boolean =>
  stored !== undefined && !specs[field]?.appliesUnchanged && isDeepStrictEqual(value, valueAt(stored, field));

function violationOf(at: string, issue: z.core.$ZodIssue): Violation {
  const inner = issue.path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`)).join('');
  return { field: at + inner, description: printable(issue.message, 300) };
}

/** A field's value; a dotted name reaches into a message field. */
function valueAt(body: object, field: string): unknown {
  let value: unknown = body;
  for (const step of field.split('.')) value = (value as Record<string, unknown> | undefined)?.[step];
  return value;
}

/** The fields that the mask names, or undefined when there is none; a name covers the fields below it. */
function readMask({ mask, specs, outputOnly }: Source, violations: Violation[]): Set<string> | undefined {
  if (mask.length === 0) return undefined;
  const named = new Set<string>();
  for (const path of mask) {
    const covered = Object.keys(specs).filter((f) => path === '*' || f === path || f.startsWith(`${path}.`));
    for (const field of covered) named.add(field);
    if (covered.length === 0)
      violations.push({ field: 'update_mask', description: maskProblem(path, specs, outputOnly) });
  }
  return named;
}

function maskProblem(path: string, specs: FieldSpecs, outputOnly: OutputOnly): string {
  const shown = JSON.stringify(printable(path, 60));
  if (outputOnly.includes(path)) return `names ${shown}, which cannot be changed`;
  const meant = nearest(path, Object.keys(specs));
  return `names ${shown}, which is no field${meant ? `; did you mean "${meant}"?` : ''}`;
}

/** A row with a patch applied to the fields of the row itself (dotted ones are the entity's own business). */
export function applyPatch<T extends object>(row: T, patch: Patch, specs: FieldSpecs): T {
  const next = { ...row } as Record<string, unknown>;
  for (const [field, value] of Object.entries(patch.set)) if (!field.includes('.')) next[field] = value;
  for (const field of patch.cleared) if (!field.includes('.')) next[field] = specs[field]?.cleared;
  return next as T;
}
