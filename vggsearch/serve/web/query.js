// A search: its pictures, those that are subtracted, a region, filters. It becomes a form for the server and the hash of a link.

import { get, missing, post, thumbnail } from "./api.js";
import { FILTERS } from "./filters.js";

export const PAGE = 60; // matches that are asked for at once
const uploads = new Map(); // the files of a search, by its id, as long as this page is open

// `pictures` are { id } of a photo of the index or { file }, or { remembered, number } which only the server has; any may
// have `isMinus`.
export function emptyQuery() {
  return { pictures: [], crop: null, filters: {}, isInside: false, name: null };
}

export function isRegionPossible(query) {
  return query.pictures.length === 1 && !query.pictures[0].isMinus && !(query.pictures[0].id && missing.has("photos"));
}

export function addressOf(picture, size = 640) {
  if (picture.id) return thumbnail(picture.id, size / devicePixelRatio);
  if (!picture.file) return `/api/query/${picture.remembered}/image?number=${picture.number}`;
  picture.address ??= URL.createObjectURL(picture.file);
  return picture.address;
}

// A picture that only the server has is sent again as it showed it.
async function fileOf(picture) {
  if (!picture.file) picture.file = await (await fetch(addressOf(picture))).blob();
  return picture.file;
}

async function formOf(query, offset = 0) {
  const form = new FormData();
  for (const picture of query.pictures) {
    if (picture.id) form.append(picture.isMinus ? "minus_photo" : "photo", picture.id);
    else form.append(picture.isMinus ? "minus" : "image", await fileOf(picture), "picture");
  }
  if (query.crop && isRegionPossible(query)) form.append("crop", query.crop.map((each) => each.toFixed(4)).join(","));
  if (query.isInside) form.append("containing", "true");
  for (const name of FILTERS) if (query.filters[name]) form.append(name, query.filters[name]);
  form.append("count", PAGE);
  form.append("offset", offset);
  return form;
}

// The most similar photos by the network alone: quick, while `search` compares the best ones more closely.
export async function glance(query, signal) {
  const form = await formOf(query);
  form.append("rerank", "false");
  return post("/api/query", form, signal);
}

export async function search(query, signal) {
  const answer = await post("/api/query", await formOf(query), signal);
  query.name = answer.query.id;
  uploads.set(query.name, query.pictures.map((picture) => ({ ...picture })));
  return answer;
}

// A server that has forgotten the search, or another one behind the same address, is sent it again.
export async function searchMore(query, offset) {
  try {
    return await get(`/api/query/${query.name}`, { offset, count: PAGE });
  } catch (error) {
    if (error.status !== 404) throw error;
    return post("/api/query", await formOf(query, offset));
  }
}

// The hash of a link: it names photos by id, so that it outlives the server, and an uploaded picture by the search it was in.
export function hashOf(query) {
  const given = new URLSearchParams();
  if (query.pictures.some(({ id }) => !id)) {
    given.append("query", query.name);
  } else {
    for (const { id, isMinus } of query.pictures) given.append(isMinus ? "minus" : "photo", id);
    if (query.crop) given.append("crop", query.crop.map((each) => each.toFixed(4)).join(","));
    if (query.isInside) given.append("inside", "1");
    for (const name of FILTERS) if (query.filters[name]) given.append(name, query.filters[name]);
  }
  return given.size ? `#search?${given}` : "#search";
}

// The search that a link names, and its answer if the server still knew it.
export async function queryOf(given) {
  const name = given.get("query");
  if (name) return remembered(name);
  const query = emptyQuery();
  query.pictures = [
    ...given.getAll("photo").map((id) => ({ id })), ...given.getAll("minus").map((id) => ({ id, isMinus: true })),
  ];
  query.crop = cropOf(given.get("crop"));
  query.isInside = given.get("inside") === "1";
  query.filters = Object.fromEntries(FILTERS.map((each) => [each, given.get(each) ?? ""]));
  return { query, answer: null };
}

async function remembered(name) {
  const answer = await get(`/api/query/${encodeURIComponent(name)}`, { count: PAGE });
  const { photos, uploads: sent, minus_photos: minusPhotos, minus_uploads: minusSent, options } = answer.query;
  const query = { ...emptyQuery(), name, crop: cropOf(options.crop), isInside: options.containing === "true" };
  query.filters = Object.fromEntries(FILTERS.map((each) => [each, options[each] ?? ""]));
  const onServer = (count, first, isMinus) => Array.from({ length: count }, (_, number) => ({ remembered: name, number: first + number, isMinus }));
  query.pictures = uploads.get(name) ?? [
    ...onServer(sent, 0, false), ...photos.map((id) => ({ id })),
    ...onServer(minusSent, sent + photos.length, true), ...minusPhotos.map((id) => ({ id, isMinus: true })),
  ];
  return { query, answer };
}

function cropOf(text) {
  const values = (text ?? "").split(",").map(Number);
  return values.length === 4 && values.every((each) => Number.isFinite(each) && each >= 0 && each <= 1) ? values : null;
}
