// The page: what is in it, what is left out, and that no text of a record becomes markup.
#include "report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <regex>
#include <set>

#include "base/error.h"
#include "report/assets.h"
#include "report/charts.h"
#include "report/html.h"
#include "report/log_axis.h"
#include "report/sample_report.h"
#include "support/temp_folder.h"

namespace nibble::report {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::report_records;
using ::testing::StartsWith;

std::vector<std::filesystem::path> no_pictures(const records::SampleResult&) {
  return {};
}

std::string page(const Records& records) {
  return report_html(records, no_pictures);
}

/// The texts between two marks, in order.
std::vector<std::string> between(const std::string& text, const std::string& from, const std::string& to) {
  std::vector<std::string> out;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    at += from.size();
    const size_t end = text.find(to, at);
    if (end == std::string::npos) break;
    out.push_back(text.substr(at, end - at));
  }
  return out;
}

/// The page without what stands inside <script>, <style> and comments.
std::string without_scripts(std::string text) {
  for (const auto& [from, to] : {std::pair{"<!--", "-->"}, {"<script", "</script>"}, {"<style>", "</style>"}})
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at))
      text.erase(at, text.find(to, at) + std::string_view(to).size() - at);
  return text;
}

/// What is wrong with the nesting of tags; "" for nothing.
std::string nesting_error(const std::string& html) {
  static const std::set<std::string> kVoid = {"meta", "img", "path", "br"};
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-zA-Z0-9]+)((?:[^\">]|\"[^\"]*\")*)>");
  for (std::sregex_iterator it(html.begin(), html.end(), tag), end; it != end; ++it) {
    const std::string name = (*it)[2];
    if (kVoid.contains(name)) continue;
    if ((*it)[1] == "") {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "</" + name + "> closes " + (open.empty() ? "nothing" : "<" + open.back() + ">");
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

std::vector<std::string> section_ids(const std::string& html) {
  return between(html, "<section id=\"", "\"");
}

TEST(Report, HasASectionForEachRecord) {
  EXPECT_THAT(section_ids(page(report_records())),
              ElementsAre("table", "plan", "errors", "rounding", "solo", "verified", "curve", "answers"));
  Records one;
  EXPECT_THAT(section_ids(page(one)), IsEmpty());
  EXPECT_THAT(page(one), Not(HasSubstr("vega")));
  one.measurements = testing::sample_measurements();
  one.measurements->solo.clear();
  EXPECT_THAT(section_ids(page(one)), ElementsAre("errors", "rounding"));
  one = {};
  one.plan = testing::sample_plan();
  EXPECT_THAT(section_ids(page(one)), ElementsAre("plan", "verified", "curve"));
  one.plan->verification.reset();
  one.plan->curve.clear();
  EXPECT_THAT(section_ids(page(one)), ElementsAre("plan"));
  one = {};
  one.models = report_records().models;
  EXPECT_THAT(section_ids(page(one)), ElementsAre("table", "answers"));
}

TEST(Report, SaysHowCheckpointsWereMade) {
  Records r = report_records();
  EXPECT_THAT(page(r), HasSubstr("feedback (damping 0.03 of vision rows, 0.2 of text rows; mix 0.5; guard "
                                 "of 24 windows)"));
  EXPECT_THAT(page(r), Not(HasSubstr("Spread")));
  r.plan->rounding.guard = 0;
  EXPECT_THAT(page(r), Not(HasSubstr("guard")));
  r = {};
  r.models = testing::sample_comparison();
  EXPECT_THAT(page(r), HasSubstr("with the calibration data and 3 resamples of it."));
  for (const char* cell :
       {"Spread, pictures", "0.250 to 0.500", "(over the budget)", "feedback", "KL, texts"})
    EXPECT_THAT(page(r), HasSubstr(cell));
}

TEST(Report, TagsAreNestedAndChartsAreJson) {
  const std::string html = page(report_records());
  EXPECT_EQ(nesting_error(without_scripts(html)), "");
  EXPECT_NE(nesting_error("<p><b></p>"), "");
  EXPECT_NE(nesting_error("<p>"), "");
  const auto specs = between(html, "<script type=\"application/json\">", "</script>");
  EXPECT_EQ(specs.size(), between(html, "<figure class=\"chart\">", "</figure>").size());
  ASSERT_EQ(specs.size(), 3u + 5 + 3 + 4 + 1 + 2);
  for (const std::string& text : specs) {
    const io::Json spec = io::parse_json(text, "spec");
    for (const char* key : {"description", "width", "height", "signals", "data", "scales", "axes", "marks"})
      EXPECT_TRUE(spec.contains(key)) << key;
    EXPECT_FALSE(spec["description"].get<std::string>().empty());
  }
}

TEST(Report, SameRecordsGiveTheSameBytes) {
  EXPECT_EQ(page(report_records()), page(report_records()));
}

TEST(Report, LoadsNothing) {
  const std::string html = page(report_records());
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  const std::string visible = without_scripts(html);
  for (const char* other : {"http:", "https:", "//", "<link", "@import", "<iframe", "<object"})
    EXPECT_THAT(visible, Not(HasSubstr(other)));
  EXPECT_THAT(html, Not(HasSubstr("sourceMappingURL")));
  const std::string style = std::string(asset("style.css")), script = std::string(asset("page.js"));
  for (const char* other : {"url(", "http", "@import", "fetch(", "import("}) {
    EXPECT_THAT(style, Not(HasSubstr(other)));
    EXPECT_THAT(script, Not(HasSubstr(other)));
  }
  EXPECT_THAT(html, HasSubstr("Redistributions in binary form must reproduce"));
}

/// Puts a text in the place of every text of the records that is free.
void poison(Records& records, const std::string& text) {
  records.plan->model = records.measurements->inventory.model = text;
  records.plan->policy = records.plan->budget = text;
  records.plan->verification->data = {text};
  records.measurements->data = {text};
  for (auto& run : records.plan->verification->runs) run.label = text;
  for (auto& decision : records.plan->decisions) decision.reason = text;
  for (size_t i = 0; i < records.plan->decisions.size(); ++i) {
    const std::string name = text + "." + std::to_string(i);
    records.plan->decisions[i].name = records.measurements->errors[i].name =
        records.measurements->inventory.linears[i].name = name;
  }
  for (auto& model : records.models) {
    model.description = model.result = model.unchanged = text;
    for (auto& sample : model.evaluation->samples) {
      sample.id = sample.prompt = sample.expected = text;
      sample.output = text + " " + sample.output;
    }
  }
}

TEST(Report, TextsOfRecordsAreNoMarkup) {
  const auto count = [](const std::string& text, char c) { return std::count(text.begin(), text.end(), c); };
  for (const std::string hostile :
       {"</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover=\"alert(1)",
        "' onfocus='alert(1)", "<!--<script>", "]]>&lt;b&gt;", "{{7*7}}"}) {
    Records plain = report_records(), records = report_records();
    poison(plain, std::string(hostile.size(), 'x'));
    poison(records, hostile);
    const std::string tags = without_scripts(page(plain));
    const std::string html = page(records), visible = without_scripts(html);
    EXPECT_EQ(nesting_error(visible), "") << hostile;
    EXPECT_EQ(count(visible, '<'), count(tags, '<')) << hostile;
    EXPECT_EQ(count(visible, '"'), count(tags, '"')) << hostile;
    EXPECT_EQ(count(visible, '\''), count(tags, '\'')) << hostile;
    for (const std::string& spec : between(html, "<script type=\"application/json\">", "</script>"))
      EXPECT_NO_THROW(io::parse_json(spec, "spec")) << hostile;
  }
  Records binary = report_records();
  poison(binary, std::string("\xff\x00\x1b[31m\xc3", 8));
  EXPECT_EQ(nesting_error(without_scripts(page(binary))), "");
}

TEST(Report, PicturesAreEmbedded) {
  const test::TempFolder folder;
  const std::string png = "\x89PNG\r\n\x1a\n and more";
  io::write_file(folder.path() / "a.png", png);
  io::write_file(folder.path() / "b.png", "no picture");
  io::write_file(folder.path() / "c.png", png + std::string(3 << 20, 'x'));
  const auto with = [&](const char* name) {
    return report_html(report_records(), [&](const auto&) { return std::vector{folder.path() / name}; });
  };
  EXPECT_THAT(with("a.png"),
              HasSubstr("<img src=\"data:image/png;base64,iVBORw0KGgogYW5kIG1vcmU=\" alt=\"The picture of "
                        "pictures/evaluation/samples.jsonl:"));
  EXPECT_THAT(with("b.png"), Not(HasSubstr("<img")));
  EXPECT_THAT(with("c.png"), HasSubstr("too large"));
  EXPECT_THAT(with("c.png"), Not(HasSubstr("<img")));
  EXPECT_THAT(with("gone.png"), Not(HasSubstr("<img")));
}

TEST(Html, Escapes) {
  EXPECT_EQ(html_text("a < b & \"c\" > 'd'\ne"), "a &lt; b &amp; &quot;c&quot; &gt; &#39;d&#39;\ne");
  EXPECT_EQ(html_text("\x1b[31m\n"), "\\x1b[31m\n");
  EXPECT_EQ(html_text(""), "");
  EXPECT_EQ(html_text("\n\n"), "\n\n");
  EXPECT_EQ(script_json({{"a", "</script><!-- &"}}), "{\"a\":\"\\u003c/script\\u003e\\u003c!-- \\u0026\"}");
  EXPECT_EQ(io::parse_json(script_json({{"a", "</b>&\"\\"}}), "x"), io::Json({{"a", "</b>&\"\\"}}));
  for (const auto& [bytes, text] : std::vector<std::pair<std::string, std::string>>{{"", ""},
                                                                                    {"f", "Zg=="},
                                                                                    {"fo", "Zm8="},
                                                                                    {"foo", "Zm9v"},
                                                                                    {"foob", "Zm9vYg=="},
                                                                                    {"\xff\xfe\xfd", "//79"}})
    EXPECT_EQ(base64(bytes), text);
  EXPECT_THAT(picture_uri("\xff\xd8\xff\xe0"), StartsWith("data:image/jpeg;base64,"));
  EXPECT_THAT(picture_uri("RIFF1234WEBPVP8 "), StartsWith("data:image/webp;base64,"));
  EXPECT_EQ(picture_uri("RIFF1234WAVE"), "");
  EXPECT_EQ(picture_uri("<svg>"), "");
}

TEST(Words, MarksWhatIsNotInTheReference) {
  EXPECT_EQ(marked_words("a b c", "a b c"), "a b c");
  EXPECT_EQ(marked_words("a x c", "a b c"), "a <mark>x</mark> c");
  EXPECT_EQ(marked_words("x  y c", "c"), "<mark>x  y</mark> c");
  EXPECT_EQ(marked_words("c b a", "a b c"), "<mark>c b</mark> a");
  EXPECT_EQ(marked_words("a\n<b> ", "a"), "a\n<mark>&lt;b&gt;</mark> ");
  EXPECT_EQ(marked_words("", "a"), "");
  EXPECT_EQ(marked_words("a", ""), "<mark>a</mark>");
  std::string long_text;
  for (int i = 0; i < 2000; ++i) long_text += "w ";
  EXPECT_EQ(marked_words(long_text, "v " + long_text), long_text) << "too long to be compared";
}

TEST(Captions, TellingSamplesComeFirst) {
  auto models = report_records().models;
  auto samples = telling_samples(models, 100);
  EXPECT_EQ(samples.size(), 18u);
  EXPECT_EQ(samples[0].results[1]->id, "pictures/evaluation/samples.jsonl:20") << "the largest KL";
  EXPECT_EQ(telling_samples(models, 3).size(), 3u);
  // A letter comes after texts, whatever its KL.
  for (auto& model : models) {
    records::SampleResult& sample = model.evaluation->samples[19];
    sample.expected = "A";
    sample.output = sample.kl > 0.01 ? "B" : "A";
  }
  EXPECT_EQ(telling_samples(models, 100).back().results[1]->id, "pictures/evaluation/samples.jsonl:20");
  // Of one model alone: what is not as expected.
  models.erase(models.begin());
  models.pop_back();
  EXPECT_EQ(telling_samples(models, 100).size(), 18u);
  EXPECT_THAT(captions_html(models, no_pictures), HasSubstr("<dt>expected</dt>"));
  for (auto& sample : models[0].evaluation->samples) sample.exact = true;
  EXPECT_EQ(captions_html(models, no_pictures), "");
}

TEST(Captions, SamplesAskedTwiceAreTwoSamples) {
  auto models = report_records().models;
  for (auto& model : models)
    for (auto& sample : model.evaluation->samples) sample.id = "one.png";
  EXPECT_EQ(telling_samples(models, 100).size(), 18u);
}

TEST(LogAxis, PlacesOfZeroAndInfinity) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> values = {0.02, 0, infinity, 30};
  const LogAxis axis(values);
  EXPECT_DOUBLE_EQ(axis.low(), 0.01);
  EXPECT_DOUBLE_EQ(axis.high(), 100);
  EXPECT_DOUBLE_EQ(axis.place(0.02), 0.02);
  EXPECT_LT(axis.place(0), axis.low());
  EXPECT_GT(axis.place(0), axis.domain()[0].get<double>());
  EXPECT_GT(axis.place(infinity), axis.high());
  EXPECT_LT(axis.place(infinity), axis.domain()[1].get<double>());
  EXPECT_EQ(axis.ticks().size(), 2u + 5);
  EXPECT_THAT(axis.note(), ::testing::AllOf(HasSubstr("exactly 0"), HasSubstr("infinite")));
}

TEST(LogAxis, AnyValuesMakeAnAxis) {
  const double infinity = std::numeric_limits<double>::infinity(),
               largest = std::numeric_limits<double>::max();
  for (const std::vector<double>& values : std::vector<std::vector<double>>{
           {}, {0}, {infinity}, {1}, {5e-324}, {largest}, {5e-324, largest, 0, infinity}, {0.1, 0.1}}) {
    const LogAxis axis(values);
    const io::Json domain = axis.domain();
    EXPECT_GT(domain[0].get<double>(), 0);
    EXPECT_TRUE(std::isfinite(domain[1].get<double>()));
    for (const double value : values) {
      EXPECT_GE(axis.place(value), domain[0].get<double>());
      EXPECT_LE(axis.place(value), domain[1].get<double>());
    }
    EXPECT_GE(axis.ticks().size(), 2u);
    EXPECT_LE(axis.ticks().size(), 8u);
  }
  const LogAxis exact(std::vector<double>{0.1, 1});
  EXPECT_EQ(exact.note(), "");
  EXPECT_EQ(exact.domain(), io::Json({0.1, 1.0}));
  EXPECT_THROW(LogAxis(std::vector<double>{-1}), InternalError);
}

/// The values of a data set of a chart.
const io::Json& data_of(const Chart& chart, const std::string& name) {
  for (const io::Json& data : chart.spec["data"])
    if (data["name"] == name) return data["values"];
  throw std::logic_error("no " + name);
}

TEST(Charts, HoldEveryLinear) {
  const Records r = report_records();
  const Charts errors = error_charts(*r.measurements, &*r.plan);
  ASSERT_EQ(errors.charts.size(), 5u);
  EXPECT_EQ(data_of(errors.charts[0], "points").size(), 4u * 8 + 2);
  EXPECT_EQ(data_of(errors.charts[2], "points").size(), 7u * 8);
  EXPECT_THAT(errors.note, HasSubstr("infinite"));
  size_t cells = 0, kept = 0;
  for (const Chart& chart : map_charts(*r.measurements, *r.plan).charts)
    for (const io::Json& cell : data_of(chart, "cells")) {
      ++cells;
      kept += cell["state"] == "16 bit";
    }
  EXPECT_EQ(cells, r.plan->decisions.size());
  EXPECT_EQ(static_cast<int64_t>(kept), r.plan->kept());
  EXPECT_THAT(data_of(errors.charts[0], "points")[0]["tip"].get<std::string>(),
              HasSubstr("visual.blocks.0.attn.qkv"));
}

TEST(Charts, ModalitiesWithoutInputsAreLeftOut) {
  Records r = report_records();
  r.plan->verification->inputs = {8, 0};
  for (const Chart& chart : {predicted_charts(*r.plan).charts[0], curve_charts(*r.plan).charts[0]})
    for (const io::Json& point : data_of(chart, "points")) EXPECT_EQ(point["kind"], "vision");
  for (auto& input : r.measurements->inputs) input.modality = records::Modality::text;
  EXPECT_EQ(solo_charts(*r.measurements, nullptr).charts.size(), 2u);
  r.measurements->solo.clear();
  EXPECT_THAT(solo_charts(*r.measurements, nullptr).charts, IsEmpty());
  for (auto& errors : r.measurements->errors) errors.rounded.reset();
  EXPECT_THAT(rounding_charts(*r.measurements).charts, IsEmpty());
}

}  // namespace
}  // namespace nibble::report
