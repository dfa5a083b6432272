// The model card, as a snapshot and against hostile records.
#include "report/card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "records/snapshot.h"
#include "report/sample_report.h"

namespace nibble::report {
namespace {

using testing::expect_snapshot;
using ::testing::HasSubstr;
using ::testing::Not;

Card sample_card() {
  const Records records = testing::report_records();
  Card card;
  card.made = {.version = "0.1.0",
               .command = "nibble quantize Org/Sample-2B -o sample-dynamic --budget 20%",
               .tensor_bytes = records.plan->bytes,
               .plan = *records.plan};
  card.made.plan.model = "Org/Sample-2B";
  card.name = "sample-dynamic";
  card.base_model = "Org/Sample-2B";
  card.family = "Qwen2-VL";
  card.model_class = "Qwen2VLForConditionalGeneration";
  card.takes_pictures = true;
  card.models = records.models;
  for (auto& model : card.models) model.result = model.unchanged = "";
  return card;
}

TEST(Card, OfAVerifiedPlan) {
  expect_snapshot("report/goldens/card.md", model_card(sample_card()));
}

TEST(Card, SaysOnlyWhatIsKnown) {
  Card card = sample_card();
  card.base_model = "";
  card.models.clear();
  card.made.plan.verification.reset();
  card.made.plan.budget = "";
  card.made.plan.format = "int8";
  for (auto& decision : card.made.plan.decisions) decision.keep = false;
  card.takes_pictures = false;
  card.model_class = "LlamaForCausalLM";
  card.family = "Llama";
  expect_snapshot("report/goldens/card_text.md", model_card(card));
  for (auto& decision : card.made.plan.decisions) decision.keep = true;
  for (const char* other : {"8-bit", "bitsandbytes checkpoint"})
    EXPECT_THAT(model_card(card), Not(HasSubstr(other)));
}

TEST(Card, KnowsItsOwn) {
  EXPECT_TRUE(is_model_card(model_card(sample_card()) + "\nand more"));
  EXPECT_FALSE(is_model_card("# A model\n"));
  EXPECT_FALSE(is_model_card(""));
}

TEST(Card, SaysNoFolderOfTheOneWhoMadeIt) {
  Card card = sample_card();
  card.base_model = "";
  card.made.plan.model = "/home/me/models/m";
  card.made.plan.policy = "list:/home/me/list.txt";
  card.made.plan.decisions[0].reason = "listed in /home/me/list.txt, line 3";
  card.made.command =
      "/home/me/nibble quantize /home/me/models/m/ -o out --data '/home/me/my set/a.jsonl' --verify=/home/b";
  card.made.plan.verification->data = {"/home/me/photos/", "texts/a.jsonl"};
  const std::string text = model_card(card);
  EXPECT_THAT(text, Not(HasSubstr("/home")));
  EXPECT_THAT(text, HasSubstr("nibble quantize m/ -o out --data 'a.jsonl' --verify=b"));
  EXPECT_THAT(text, HasSubstr("photos/, texts/a.jsonl"));
}

TEST(Card, HubNames) {
  EXPECT_EQ(hub_name("Qwen/Qwen2-VL-2B-Instruct"), "Qwen/Qwen2-VL-2B-Instruct");
  EXPECT_EQ(hub_name("org/name@main"), "org/name");
  for (const char* other : {"", "name", "/name", "org/", "./name", "../name", "/a/b", "a/b/c",
                            "a/b\nlicense: mit", "~/x", "org/-x", "a b/c"})
    EXPECT_EQ(hub_name(other), "") << other;
}

TEST(Card, TextsOfRecordsAreNoMarkup) {
  Card card = sample_card();
  const std::string hostile = "</code>\n---\nlicense: mit\n```\n# Title <script>alert(1)</script> | a [b](c)";
  card.base_model = "";
  card.name = card.made.command = card.made.version = card.made.plan.model = card.made.plan.policy =
      card.made.plan.budget = hostile;
  card.made.plan.verification->data = {hostile};
  for (auto& decision : card.made.plan.decisions) decision.reason = hostile;
  for (auto& model : card.models) model.description = hostile;
  const std::string text = model_card(card);
  EXPECT_THAT(text, Not(HasSubstr("\nlicense")));
  EXPECT_THAT(text, Not(HasSubstr("\n# Title")));
  size_t fences = 0;
  for (size_t at = text.find("\n```"); at != std::string::npos; at = text.find("\n```", at + 1)) ++fences;
  EXPECT_EQ(fences, 4u);
}

}  // namespace
}  // namespace nibble::report
