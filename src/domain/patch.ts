import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import type { Violation } from '../errors.js';
import { nearest, printable } from './text.js';

/** How one field of an entity can be written. */
export interface FieldSpec {
  readonly schema: z.ZodType;
  /** The value of the cleared field; if absent, the field cannot be cleared. */
  readonly cleared?: unknown;
  /**
   * Whether a value means that the field is absent, in addition to undefined: `''` or `[]` for fields without presence.
   */
  readonly absent?: (value: unknown) => boolean;
  /** Whether a value applies even if the row already has it: sending a cost sets `price_given`. */
  readonly appliesUnchanged?: boolean;
}
export type FieldSpecs = Readonly<Record<string, FieldSpec>>;

/** The names of fields that a body may contain but a mask must not. */
export type OutputOnly = readonly string[];

/**
 * The changes of a request, with three states: a field in `set` gets its value, a
 * field in `cleared` gets its cleared value, every other field is kept.
 */
export interface Patch {
  readonly set: Readonly<Record<string, unknown>>;
  readonly cleared: ReadonlySet<string>;
  /** Fields whose value is not valid; later checks ignore them. */
  readonly invalid: ReadonlySet<string>;
  readonly violations: readonly Violation[];
}

/** Whether a patch contains any of the fields. */
export const touches = (patch: Patch, ...fields: readonly string[]): boolean =>
  fields.some((field) => field in patch.set || patch.cleared.has(field) || patch.invalid.has(field));

interface Source {
  readonly body: object;
  /** Paths as in AIP-134; empty applies what is present, `*` everything. */
  readonly mask: readonly string[];
  readonly specs: FieldSpecs;
  readonly outputOnly: OutputOnly;
  /** The field path of the body in the request, for example `config`. */
  readonly at: string;
  /**
   * The current message. A field with the same value in the body is not a change and is not checked, so that a caller
   * can send back the whole message that it has read even if the catalogue has changed since.
   */
  readonly stored?: object | undefined;
}

/** Reads the changes of a request, and collects every violation of every field. */
export function readPatch(source: Source): Patch {
  const { specs, at } = source;
  const violations: Violation[] = [];
  const set: Record<string, unknown> = {};
  const cleared = new Set<string>();
  const invalid = new Set<string>();
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
        invalid.add(field);
        violations.push(...result.error.issues.map((issue) => violationOf(`${at}.${field}`, issue)));
      }
    }
  }
  return { set, cleared, invalid, violations };
}

const isUnchanged = ({ stored, specs }: Source, field: string, value: unknown): boolean =>
  stored !== undefined && !specs[field]?.appliesUnchanged && isDeepStrictEqual(value, valueAt(stored, field));

function violationOf(at: string, issue: z.core.$ZodIssue): Violation {
  const inner = issue.path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`)).join('');
  return { field: at + inner, description: printable(issue.message, 300) };
}

/** The value of a field. A dotted name addresses a field of a nested message. */
function valueAt(body: object, field: string): unknown {
  let value: unknown = body;
  for (const step of field.split('.')) value = (value as Record<string, unknown> | undefined)?.[step];
  return value;
}

/** The fields that the mask names, including those below a named message; undefined for an empty mask. */
function readMask({ mask, specs, outputOnly }: Source, violations: Violation[]): Set<string> | undefined {
  if (mask.length === 0) return undefined;
  const named = new Set<string>();
  for (const path of mask) {
    const matches = Object.keys(specs).filter((f) => path === '*' || f === path || f.startsWith(`${path}.`));
    for (const field of matches) named.add(field);
    if (matches.length === 0)
      violations.push({ field: 'update_mask', description: maskProblem(path, specs, outputOnly) });
  }
  return named;
}

function maskProblem(path: string, specs: FieldSpecs, outputOnly: OutputOnly): string {
  const shown = JSON.stringify(printable(path, 60));
  if (outputOnly.includes(path)) return `names ${shown}, which cannot be changed`;
  const suggestion = nearest(path, Object.keys(specs));
  return `names ${shown}, which is not a field${suggestion ? `; did you mean "${suggestion}"?` : ''}`;
}

/** Applies a patch to the columns of a row. The entity applies dotted fields itself. */
export function applyPatch<T extends object>(row: T, patch: Patch, specs: FieldSpecs): T {
  const next = { ...row } as Record<string, unknown>;
  for (const [field, value] of Object.entries(patch.set)) if (!field.includes('.')) next[field] = value;
  for (const field of patch.cleared) if (!field.includes('.')) next[field] = specs[field]?.cleared;
  return next as T;
}
